"""The loss of training: likelihood, and for a second stage a spectral distance between speech and the voice's samples.

Source of the second part: Gritsenko, Salimans, van den Berg, Snoek & Kalchbrenner 2020, "A Spectral Energy Distance for
Parallel Speech Synthesis", arXiv:2008.01160. For speech x and two samples y, y' of the same mel, from independent latents,

    D(x; y, y') = d(x, y) + d(x, y') - d(y, y')

is, in expectation, smallest where samples are distributed as speech is: the last term keeps them apart. With one sample
D = d(x, y), which asks for the median of all that a mel allows. d compares spectrograms of several resolutions:

    d(a, b) = mean over windows and frames of  rms over bins of (log A - log B)  +  MAGNITUDE_WEIGHT * mean |A - B|

To D may be added the mel error of the samples, mean |log-mel(y) - mel|. A mel is not one of many that fit the speech: it is
a function of it, so speech and every perfect sample have exactly the mel that was asked for, and this term needs no rival.

Rules: tensors in, scalars out; what is random comes from `Latents`, whose state can be saved.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from flow.data import ALL
from flow.mel import MelFormat, filter_bank, hann_window
from flow.recipe import Settings, TrainError
from flow.waveglow import WaveGlow

WINDOWS = (128, 256, 512, 1024, 2048)
"""Samples of the Hann windows; each hops a quarter of itself."""
MAGNITUDE_WEIGHT = 8.0
FLOOR = 2.5e-4
"""Added to magnitudes before the logarithm, about -72 dB of full scale: what lies below counts as silence."""
VALIDATION_SEED = 1
LIMIT = 1.5
"""Samples beyond it are cut: a young voice can overshoot a thousandfold, and one such sample would be the whole batch."""

Inverse = Callable[[Tensor, Tensor, bool], Tensor]
"""z [B, G, S], mel [B, M, L], whether convolutions run in bf16 -> audio [B, T]; WaveGlow.inverse."""
Batch = tuple[Tensor, Tensor, bool]
"""Audio [B, T], mel [B, M, L], whether convolutions run in bf16."""
Spectrograms = list[tuple[Tensor, Tensor]]
"""For each window magnitude and its logarithm, [B, window / 2 + 1, frames] each."""


@cache
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


def spectrograms(audio: Tensor) -> Spectrograms:
    """Audio [B, T], T > max(WINDOWS) / 2 -> magnitudes over the root of the window's length, and their logarithms."""
    found = []
    for size in WINDOWS:
        stft = torch.stft(audio, size, size // 4, window=_window(size, audio.device), return_complex=True)
        # The root of zero has no slope: hence a little power everywhere.
        magnitude = ((stft.real.square() + stft.imag.square() + 1e-7) / size).sqrt()
        found.append((magnitude, (magnitude + FLOOR).log()))
    return found


def distance(a: Spectrograms, b: Spectrograms) -> Tensor:
    """d of the file's head, a scalar: 0 for equal spectrograms (but for the 1e-3 that smooths the root), symmetric."""
    terms = [
        ((log_a - log_b).square().mean(1) + 1e-6).sqrt().mean() + MAGNITUDE_WEIGHT * (mag_a - mag_b).abs().mean()
        for (mag_a, log_a), (mag_b, log_b) in zip(a, b)
    ]
    return torch.stack(terms).mean()


def energy_distance(audio: Tensor, samples: Sequence[Tensor]) -> Tensor:
    """D of the file's head, a scalar, for speech [B, T] and one or two samples [B, T]."""
    real, *drawn = map(spectrograms, (audio, *(sample.clamp(-LIMIT, LIMIT) for sample in samples)))
    attraction = torch.stack([distance(real, sample) for sample in drawn]).sum()
    repulsion = [distance(a, b) for a, b in itertools.combinations(drawn, 2)]
    return attraction - torch.stack(repulsion).sum() if repulsion else attraction


@cache
def _mel_constants(format: MelFormat, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(hann_window(format)).to(device), torch.from_numpy(filter_bank(format)).to(device)


def mel_error(samples: Tensor, mel: Tensor, format: MelFormat) -> Tensor:
    """Mean absolute difference, in nats, between the log-mel of samples [B, L * hop] and mel [B, M, L]: a scalar.

    Only of frames whose window lies inside: what was around a segment is not known to its samples.
    """
    window, bank = _mel_constants(format, samples.device)
    stft = torch.stft(
        samples.clamp(-LIMIT, LIMIT), format.n_fft, format.hop, window=window, center=False, return_complex=True
    )
    found = bank @ (stft.real.square() + stft.imag.square() + 1e-12).sqrt()
    first = format.n_fft // 2 // format.hop
    return (found.clamp(min=format.log_floor).log() - mel[:, :, first : first + found.shape[2]]).abs().mean()


def sampled_distance(voice: WaveGlow, inverse: Inverse, batch: Batch, z: Tensor, settings: Settings) -> Tensor:
    """D of speech from what `inverse` makes of z [samples * B, G, S], and mel_weight times its mel error: a scalar."""
    audio, mel, bf16 = batch
    count = len(z) // len(audio)
    mels = mel.repeat(count, 1, 1)
    samples = inverse(z, mels, bf16)
    found = energy_distance(audio, samples.chunk(count))
    return found + settings.mel_weight * mel_error(samples, mels, voice.config.mel) if settings.mel_weight else found


class Latents:
    """The endless latents of a training run. Which ones come next is explicit state, so a run can be resumed exactly."""

    def __init__(self, voice: WaveGlow, settings: Settings, device: torch.device, seed: int) -> None:
        config = voice.config
        groups = settings.segment_samples // config.group + voice.squeeze.extra_groups
        self.shape = (config.group, groups)
        self.samples, self.sigma = settings.spectral_samples, settings.spectral_sigma or config.sigma
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    def next(self, count: int, share: slice = ALL) -> Tensor:
        """For `count` segments: z [samples * count, G, S], normal with standard deviation sigma; first samples first.

        Of these segments, a process that trains together with others takes its `share`.
        """
        size = (self.samples, count, *self.shape)
        z = torch.randn(size, generator=self._generator, device=self.device)[:, share]
        return self.sigma * z.flatten(0, 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on with the same latents."""
        return {"generator": self._generator.get_state(), "device": self.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; on another kind of device the latents are others."""
        if state["device"] == self.device.type:
            self._generator.set_state(state["generator"])


def invertible(network: nn.Module, reason: str) -> WaveGlow:
    """The network, if one pass can draw samples from it. Raises TrainError: `reason`, and why not."""
    if not isinstance(network, WaveGlow):
        raise TrainError(f"{reason}, but {type(network).__name__} has no inverse to draw them with; allowed: 0")
    return network


class Objective(nn.Module):
    """The loss of a batch as a module of its own: nll_weight * NLL + spectral_weight * D.

    Raises TrainError, if spectral_weight is not 0, for a network that cannot be sampled or a segment that is too short.
    """

    def __init__(self, network: WaveGlow, settings: Settings) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self._nll: Callable[..., Tensor] = network.nll
        if settings.spectral_weight:
            _require_length(settings)
            self._inverse: Inverse = invertible(network, _asked(settings)).inverse
        if settings.compile:
            self._nll = torch.compile(self._nll, dynamic=False)
        if settings.compile and settings.spectral_weight:
            # The spectrograms stay outside: they are a few large FFTs, and the compiler leaves complex numbers alone.
            self._inverse = torch.compile(self._inverse, dynamic=False)

    def forward(self, audio: Tensor, mel: Tensor, z: Tensor | None, bf16: bool) -> tuple[Tensor, Tensor]:
        """Audio [B, T], mel [B, M, L], z [samples * B, G, S] if there is a spectral part -> loss, NLL: scalars."""
        nll = self._nll(audio, mel, bf16)
        loss = self.settings.nll_weight * nll
        if z is not None:
            found = sampled_distance(self.network, self._inverse, (audio, mel, bf16), z, self.settings)
            loss = loss + self.settings.spectral_weight * found
        return loss, nll


@torch.no_grad()
def validation_distance(
    network: nn.Module, segments: Sequence[tuple[Tensor, Tensor]], settings: Settings, bf16: bool
) -> float:
    """D of fixed segments, batches of audio [B, T] and mel [B, M, L], and fixed samples of a network."""
    voice = invertible(network, _asked(settings))
    # Drawn on the CPU, so that they are the same on every device.
    latents = Latents(voice, settings, torch.device("cpu"), VALIDATION_SEED)
    total = 0.0
    for audio, mel in segments:
        z = latents.next(len(audio)).to(audio.device)
        total += len(audio) * sampled_distance(voice, voice.inverse, (audio, mel, bf16), z, settings).item()
    return total / sum(len(audio) for audio, _ in segments)


def _asked(settings: Settings) -> str:
    return f"spectral_weight is {settings.spectral_weight:g}, which takes samples"


def _require_length(settings: Settings) -> None:
    if settings.segment_samples <= (reach := max(WINDOWS) // 2):
        raise TrainError(f"segment_samples is {settings.segment_samples}; the spectral part needs more than {reach}")
