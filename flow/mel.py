"""The mel front end: one implementation for training, evaluation and clients, whole or streamed.

Rules: numpy only, so that a client that computes mel frames is small and starts at once. Frames are rows: [L, M] float32,
natural logarithm.

The default is the format of the published WaveGlow checkpoints: centred STFT with reflect padding, Hann window, magnitude,
Slaney-normalised bands, log clamped at 1e-5 (NVIDIA/tacotron2 `layers.TacotronSTFT`; librosa.filters.mel defaults). Others
differ in numbers, in the filter bank (`bank`, `norm`), and in the framing:

    centre true     frame f is centred on sample f * hop                reflected: n_fft / 2 samples
    centre false    on f * hop + hop / 2, as in HiFi-GAN's front end    reflected: (n_fft - hop) / 2 samples
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glowd.flow.options import Options, option

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
BANKS, NORMS = ("slaney", "htk"), ("slaney", "none")


@dataclass(frozen=True, slots=True)
class MelFormat(Options):
    """What a mel frame is. Two formats are interchangeable when they are equal.

    Its map, `to_dict`, stands in checkpoints and in `open` messages. Keys of ADDED are in it where they differ from their
    defaults: programs that do not know them read all other formats.
    """

    rate_hz: int = option(22050, "samples per second of the audio", min=1000, max=384_000)
    n_fft: int = option(1024, "samples of a Fourier transform", min=2, max=16_384)
    hop: int = option(256, "samples from one frame to the next", min=1, max=16_384)
    win: int = option(1024, "samples of the Hann window", min=1, max=16_384)
    n_mels: int = option(80, "bands of a frame", min=1, max=512)
    fmin_hz: float = option(0.0, "lower end of the lowest band", min=0)
    fmax_hz: float = option(8000.0, "upper end of the highest band", above=0)
    log_floor: float = option(1e-5, "magnitude that lower ones are raised to before the logarithm", above=0)
    bank: str = option("slaney", "mel scale on which the bands are spaced", choices=BANKS)
    norm: str = option("slaney", "filters of unit area (slaney) or of height 1 (none)", choices=NORMS)
    centre: bool = option(True, "whether frame f is centred on sample f * hop, not half a hop later")

    @property
    def edge_samples(self) -> int:
        """Samples that are reflected at the beginning: frame f begins that much before sample f * hop."""
        return (self.n_fft if self.centre else self.n_fft - self.hop) // 2

    @property
    def end_samples(self) -> int:
        """Samples that are reflected at the end: as many, or one more, so that there are whole hops of frames."""
        return self.edge_samples if self.centre else self.n_fft - self.hop - self.edge_samples

    @property
    def centre_samples(self) -> int:
        """Samples from f * hop to the centre of frame f: 0, or half a hop."""
        return self.n_fft // 2 - self.edge_samples

    @property
    def is_for_voices(self) -> bool:
        """Whether a voice may have it: a rate from 8,000 to 96,000 Hz. Recordings and clients may have others."""
        return 8000 <= self.rate_hz <= 96_000

    def check(self) -> None:
        """Raise OptionError where values contradict one another."""
        self.require("win", self.win <= self.n_fft, f"at most n_fft, {self.n_fft}")
        self.require("fmin_hz", self.fmin_hz < self.fmax_hz, f"below fmax_hz, {self.fmax_hz:g}")
        self.require(
            "hop", self.centre or self.hop <= self.n_fft, f"at most n_fft, {self.n_fft}, where centre is false"
        )

    def to_dict(self) -> dict[str, Any]:
        """See Options."""
        full = Options.to_dict(self)
        return {key: value for key, value in full.items() if value != ADDED.get(key)}


ADDED = {"bank": "slaney", "norm": "slaney", "centre": True}
"""Keys that checkpoints of the first release do not have, with the values that they stand for there."""


class Bank(Protocol):
    """What describes a filter bank: MelFormat, and the description of others' mels (mel_formats/description.py)."""

    @property
    def rate_hz(self) -> int: ...
    @property
    def n_fft(self) -> int: ...
    @property
    def n_mels(self) -> int: ...
    @property
    def fmin_hz(self) -> float: ...
    @property
    def fmax_hz(self) -> float: ...
    @property
    def bank(self) -> str: ...
    @property
    def norm(self) -> str: ...


def slaney_hz(mel: Doubles) -> Doubles:
    """Mel to Hz on Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    linear = mel * (200 / 3)
    return np.where(mel < 15, linear, 1000 * np.exp((mel - 15) * (np.log(6.4) / 27)))


def slaney_mel(hz: float) -> float:
    """The inverse of `slaney_hz`."""
    return hz * 3 / 200 if hz < 1000 else 15 + np.log(hz / 1000) * (27 / np.log(6.4))


def corners_hz(bank: Bank) -> Doubles:
    """Where the triangles begin, peak and end [n_mels + 2], in Hz: band b has its peak at b + 1."""
    if bank.bank == "slaney":
        return slaney_hz(np.linspace(slaney_mel(bank.fmin_hz), slaney_mel(bank.fmax_hz), bank.n_mels + 2))
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (bank.fmin_hz, bank.fmax_hz))  # HTK Book, section 5.4
    made: Doubles = 700 * (10 ** (np.linspace(low, high, bank.n_mels + 2) / 2595) - 1)
    return made


def band_heights(bank: Bank) -> Doubles:
    """The height of each triangle [n_mels]."""
    corners = corners_hz(bank)
    return 2 / (corners[2:] - corners[:-2]) if bank.norm == "slaney" else np.ones(bank.n_mels)


def triangles(bank: Bank) -> Doubles:
    """The filters [n_mels, n_fft / 2 + 1].

    Written out here because importing librosa takes seconds (numba), and a client would wait that long when it starts.
    """
    corners = corners_hz(bank)
    bins = np.arange(bank.n_fft // 2 + 1) * (bank.rate_hz / bank.n_fft)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    made: Doubles = np.maximum(0, np.minimum(rising, falling)) * band_heights(bank)[:, None]
    return made


@lru_cache(maxsize=16)
def filter_bank(format: MelFormat) -> Floats:
    """The mel filters [M, n_fft / 2 + 1]; a test compares them with librosa.filters.mel."""
    return triangles(format).astype(np.float32)


@lru_cache(maxsize=16)
def hann_window(format: MelFormat) -> Floats:
    """Periodic Hann window of `win` samples, centred in `n_fft`."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(format.win) / format.win)
    left = (format.n_fft - format.win) // 2
    return np.pad(window, (left, format.n_fft - format.win - left)).astype(np.float32)


def frames_to_mel(frames: Floats, format: MelFormat) -> Floats:
    """Windows of samples [L, n_fft] -> log-mel [L, M]."""
    magnitude = np.abs(np.fft.rfft(frames * hann_window(format))).astype(np.float32)
    mel = magnitude @ filter_bank(format).T
    return np.log(np.maximum(mel, np.float32(format.log_floor)))


class MelStream:
    """Log-mel of a signal that is still arriving: the frames of all pushes and of `end` equal `log_mel` of the whole.

    A centred frame f reaches n_fft / 2 samples past sample f * hop; that is all the look-ahead there is:

        samples   |--reflected--|0 ............ f*hop ............|
        frame f                   [----n_fft/2---|---n_fft/2----]
    """

    def __init__(self, format: MelFormat | None = None) -> None:
        self.format = format or MelFormat()
        self._samples = np.zeros(0, np.float32)
        self._next = 0  # where the next frame begins in them
        self._left_padded = False
        self._received_samples = 0

    def push(self, samples: Floats) -> Floats:
        """Samples [T] in [-1, 1] -> the frames [n, M] that they complete (n may be 0). Raises ValueError on a wrong shape."""
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"audio must be mono, shape [T]; got shape {list(samples.shape)}")
        self._received_samples += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        edge = self.format.edge_samples
        if not self._left_padded:
            if len(self._samples) <= edge:
                return self._empty()
            self._samples = np.concatenate([self._samples[edge:0:-1], self._samples])
            self._left_padded = True
        return self._complete_frames()

    def end(self) -> Floats:
        """The last frames [n, M]: the signal ends here and is reflected at its end. Raises ValueError if it is too short."""
        end = self.format.end_samples
        if not self._left_padded or self._received_samples <= end:
            raise ValueError(f"audio has {self._received_samples} samples; a mel needs at least {end + 1}")
        self._samples = np.concatenate([self._samples, self._samples[-2 : -end - 2 : -1]])
        return self._complete_frames()

    def _complete_frames(self) -> Floats:
        n_fft, hop = self.format.n_fft, self.format.hop
        count = (len(self._samples) - self._next - n_fft) // hop + 1
        if count <= 0:
            return self._empty()
        windows = np.lib.stride_tricks.sliding_window_view(self._samples[self._next :], n_fft)
        mel = frames_to_mel(windows[: count * hop : hop], self.format)
        self._next += count * hop
        # What the end reflects is kept.
        done = max(0, min(self._next, len(self._samples) - self.format.end_samples - 1))
        self._samples, self._next = self._samples[done:], self._next - done
        return mel

    def _empty(self) -> Floats:
        return np.zeros((0, self.format.n_mels), np.float32)


def log_mel(audio: Floats, format: MelFormat | None = None) -> Floats:
    """Audio [T] in [-1, 1] at `format.rate_hz` -> log-mel [T // hop + 1, M], or [T // hop, M] where `centre` is false.

    Raises ValueError on a wrong shape or length.
    """
    stream = MelStream(format)
    return np.concatenate([stream.push(audio), stream.end()])
