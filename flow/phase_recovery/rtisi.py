"""RTISI-LA as a vocoder: Griffin-Lim frame by frame, for clear speech in real time without a network.

Rules: numpy and scipy, no torch. A frame's phase is settled while the next ones arrive, and does not change after that:
real-time iterative spectrogram inversion with look-ahead (Zhu, Beauregard & Wyse 2007, "Real-Time Signal Estimation From
Modified Short-Time Fourier Transform Magnitude Spectra", IEEE TASLP 15(5)). The samples of a stream are a function of its
frames and its seed alone, to the last bit: neither chunks nor other streams in a call change them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import scipy.fft

from glowd.flow.mel import Floats, MelFormat, hann_window
from glowd.flow.phase_recovery.mel_inversion import MelInversion
from glowd.flow.vocoder import BEGINNING, Origin, Stream, Vocoder

TINY = np.float32(1e-20)
MIN_WEIGHT = np.float32(1e-3)
"""Window energy below which a sample is not scaled up any further."""


class RtisiStream(Stream):
    """A stream, and the frames that its next frame overlaps. Arrays are replaced, never written into.

    With S = hop, W = samples of a frame, Q = W / S and K = 1 + look-ahead:
    """

    settled: Floats
    """[Q - 1, S]: sum of the settled frames, where later frames still overlap it."""
    tentative: Floats
    """[K, W]: windowed samples of the frames whose phase still changes, oldest first; the last enters next."""
    magnitudes: Floats
    """[K, n_fft / 2 + 1]: those of the last K frames that entered."""
    held: Floats
    """Complete samples that belong to the next frame: none where frame f is centred on f * hop, else half a hop."""


class RtisiVocoder(Vocoder[RtisiStream]):
    """RTISI-LA. One tick takes in one frame, improves the phases of the newest K, and settles the oldest of them:

        settled frames     ... [ f-1 ]
        tentative                  [  f  ]              <- settled at the end of this tick
                                       [ f+1 ] ...      <- look_ahead_frames of these
        samples of frame   ...... f-Q/2 | complete: every frame over them is settled

    In each iteration all tentative frames are analysed out of the sum of everything, and keep the phase they find but
    not the magnitude. That sum is not divided by the sum of windows, so towards the newest frame, which nothing follows
    yet, it falls off: the newest frame's analysis window is in effect an asymmetric one that trusts its settled past. (The
    paper's asymmetric window mirrors that fall, and sounds no better here.) A frame enters as silence, so its first
    phase is the one its predecessors predict by overlap. Samples are divided by the sum of squared windows on their way
    out; before the first frame there is silence, after the last one it is repeated.

    A frame has W samples: the window, and zeros up to a multiple of two hops. What its transform has more is zeros too.
    """

    latency_samples = 0
    # The phase of a frame depends on all frames before it, so only a stream from its beginning is exact.
    history_frames = 2**31 - 1
    sigma = 0.0

    def __init__(
        self, format: MelFormat | None = None, name: str = "rtisi", look_ahead_frames: int = 2, iterations: int = 16
    ) -> None:
        """`look_ahead_frames` beyond those that overlap a sample; `iterations` per frame. Raises ValueError."""
        self.format, self.name, self.iterations = format or MelFormat(), name, iterations
        if look_ahead_frames < 0 or iterations < 1:
            raise ValueError(
                f"{name}: look_ahead_frames is {look_ahead_frames} and iterations {iterations}; allowed: at least 0 and 1"
            )
        self.overlap = 2 * -(-self.format.win // (2 * self.hop))
        self._frame_samples = self.overlap * self.hop
        self._reach = self.overlap // 2  # frames after a frame whose windows cover its samples
        self._tentative_frames = 1 + look_ahead_frames
        self.look_ahead_frames = look_ahead_frames + self._reach
        begin = (self._frame_samples - self.format.win) // 2
        self._inside = slice(begin, begin + self.format.win)
        self._window = hann_window(replace(self.format, n_fft=self.format.win, centre=True))
        whole = np.zeros(self._frame_samples, np.float32)
        whole[self._inside] = self._window
        self._weights = np.maximum((whole**2).reshape(self.overlap, self.hop).sum(axis=0), MIN_WEIGHT)
        self._blocks = np.arange(self._tentative_frames)[:, None] + np.arange(self.overlap)
        self._inversion = MelInversion(self.format)

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> RtisiStream:
        """See Vocoder; `sigma` has no effect. Raises ValueError for an origin other than frame 0."""
        if origin.frame != 0:
            raise ValueError(
                f"{self.name}: first_frame is {origin.frame}; allowed: 0, as a frame depends on all before it"
            )
        stream = RtisiStream(seed, self.sigma, self.format.n_mels)
        stream.tentative = np.zeros((self._tentative_frames, self._frame_samples), np.float32)
        # The first frame has no past to take its phase from: it enters as noise, of which only the phase is kept.
        noise = np.random.default_rng(seed % 2**64).standard_normal(self.format.win)
        stream.tentative[-1, self._inside] = noise.astype(np.float32) * self._window
        stream.settled = np.zeros((self.overlap - 1, self.hop), np.float32)
        stream.magnitudes = np.zeros((self._tentative_frames, self.format.n_fft // 2 + 1), np.float32)
        stream.held = np.zeros(0, np.float32)
        return stream

    def ready_frames(self, stream: RtisiStream, limit: int) -> int | None:
        """See Vocoder."""
        held_back = 0 if stream.ended else self.look_ahead_frames
        ready = min(limit, stream.frames_in - held_back - stream.frames_done)
        return ready if ready > 0 else None

    def key(self, stream: RtisiStream, frames: int) -> Hashable:
        """See Vocoder. A first step takes the look-ahead in as well."""
        return frames, stream.frames_done == 0

    def step(self, streams: Sequence[RtisiStream], frames: int) -> list[Floats]:
        """See Vocoder."""
        taken_in = 0 if streams[0].frames_done == 0 else self.look_ahead_frames
        coming = self._coming(streams, taken_in, frames + self.look_ahead_frames)
        settled = np.stack([stream.settled for stream in streams])
        tentative = np.stack([stream.tentative for stream in streams])
        magnitudes = np.stack([stream.magnitudes for stream in streams])
        blocks = []
        for tick in range(coming.shape[1]):
            magnitudes = np.concatenate([magnitudes[:, 1:], coming[:, tick, None]], axis=1)
            tentative = self._iterate(settled, tentative, magnitudes)
            total = self._overlap_add(settled, tentative[:, :1])
            blocks.append(total[:, 0])
            settled = total[:, 1:]
            tentative = np.concatenate([tentative[:, 1:], np.zeros_like(tentative[:, :1])], axis=1)
        for row, stream in enumerate(streams):
            stream.settled, stream.tentative, stream.magnitudes = settled[row], tentative[row], magnitudes[row]
        return [self._take(stream, row, frames) for stream, row in zip(streams, np.stack(blocks, axis=1))]

    def _coming(self, streams: Sequence[RtisiStream], begin: int, end: int) -> Floats:
        """Magnitudes [B, end - begin, F] of frames that far after those rendered; a stream's last frame is repeated."""
        mels = [s.frames(s.frames_done, s.frames_in) for s in streams]
        window = np.concatenate([mel[np.minimum(np.arange(begin, end), len(mel) - 1)] for mel in mels])
        return self._inversion(window).reshape(len(streams), end - begin, -1)

    def _iterate(self, settled: Floats, tentative: Floats, magnitudes: Floats) -> Floats:
        """The tentative frames [B, K, n_fft] with phases that fit each other and the settled past better."""
        for _ in range(self.iterations):
            signal = self._overlap_add(settled, tentative)
            views = signal[:, self._blocks].reshape(tentative.shape)
            spectra = scipy.fft.rfft(views[..., self._inside] * self._window, self.format.n_fft)
            spectra *= magnitudes / np.maximum(np.abs(spectra), TINY)
            found = scipy.fft.irfft(spectra, self.format.n_fft)[..., : self.format.win]
            tentative = np.zeros(views.shape, np.float32)
            np.multiply(found, self._window, out=tentative[..., self._inside])
        return tentative

    def _overlap_add(self, settled: Floats, frames: Floats) -> Floats:
        """Settled parts [B, Q - 1, S] and n frames [B, n, n_fft] from there on -> their sum [B, n + Q - 1, S]."""
        batch, count, _ = frames.shape
        total = np.zeros((batch, count + self.overlap - 1, self.hop), np.float32)
        total[:, : self.overlap - 1] = settled
        parts = frames.reshape(batch, count, self.overlap, self.hop)
        for part in range(self.overlap):
            total[:, part : part + count] += parts[:, :, part]
        return total

    def _take(self, stream: RtisiStream, blocks: Floats, frames: int) -> Floats:
        """The next `frames` of samples; `blocks` begin at the centre of a frame, the last ones are new."""
        first = stream.frames_done == 0
        samples = (blocks[-frames - first :] / self._weights).reshape(-1)
        # The block before frame 0 holds what lies between sample 0 and the centre of that frame.
        new = samples[self.hop - self.format.centre_samples :] if first else samples
        samples = np.concatenate([stream.held, new])
        samples, stream.held = np.split(samples, [frames * self.hop])
        stream.rendered(frames, len(samples))
        return samples
