"""The loss of training: likelihood, and for a second stage how far samples of the voice are from speech.

Rules: the network is asked for likelihoods and samples; how these compare with speech is spectral.py. What is random comes
from `Latents`, whose state can be saved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glowd.flow.mel import MelFormat
from glowd.flow.network.registry import Network
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.training.data import ALL
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.spectral import WINDOWS, energy_distance, mel_error

VALIDATION_SEED = 1

Inverse = Callable[[Tensor, Tensor, bool], Tensor]
"""z [B, G, S], mel [B, M, L], whether convolutions run in bf16 -> audio [B, T]; WaveGlow.inverse."""
Batch = tuple[Tensor, Tensor, bool]
"""Audio [B, T], mel [B, M, L], whether convolutions run in bf16."""


class Latents:
    """The endless latents of a training run. Which ones come next is explicit state, so a run can be resumed exactly."""

    def __init__(self, network: Network, settings: Settings, device: torch.device, seed: int) -> None:
        """For samples of a network that can be sampled in one pass; raises TrainError for another one."""
        voice = invertible(network, _asked(settings))
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
    """The loss of a batch as a module of its own: nll_weight * NLL + spectral_weight * (D + phase_weight * P +
    mel_weight * mel error), all of them in spectral.py.

    Raises TrainError, if spectral_weight is not 0, for a network that cannot be sampled or a segment that is too short.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
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
            found = sampled_distance(self._inverse, (audio, mel, bf16), z, self.settings, self.network.config.mel)
            loss = loss + self.settings.spectral_weight * found
        return loss, nll


def sampled_distance(inverse: Inverse, batch: Batch, z: Tensor, settings: Settings, format: MelFormat) -> Tensor:
    """D + phase_weight * P + mel_weight * mel error (spectral.py), a scalar, of what `inverse` makes of z [samples * B, G, S]."""
    audio, mel, bf16 = batch
    count = len(z) // len(audio)
    mels = mel.repeat(count, 1, 1)
    samples = inverse(z, mels, bf16)
    found = energy_distance(audio, samples.chunk(count), settings.phase_weight)
    return found + settings.mel_weight * mel_error(samples, mels, format) if settings.mel_weight else found


@torch.no_grad()
def validation_distance(
    network: Network, segments: Sequence[tuple[Tensor, Tensor]], settings: Settings, bf16: bool
) -> float:
    """`sampled_distance` of fixed segments, batches of audio [B, T] and mel [B, M, L], and fixed samples of a network."""
    voice = invertible(network, _asked(settings))
    # Drawn on the CPU, so that they are the same on every device.
    latents = Latents(voice, settings, torch.device("cpu"), VALIDATION_SEED)
    total = 0.0
    for audio, mel in segments:
        z = latents.next(len(audio)).to(audio.device)
        found = sampled_distance(voice.inverse, (audio, mel, bf16), z, settings, voice.config.mel)
        total += len(audio) * found.item()
    return total / sum(len(audio) for audio, _ in segments)


def _asked(settings: Settings) -> str:
    return f"spectral_weight is {settings.spectral_weight:g}, which takes samples"


def _require_length(settings: Settings) -> None:
    if settings.segment_samples <= (reach := max(WINDOWS) // 2):
        raise TrainError(f"segment_samples is {settings.segment_samples}; the spectral part needs more than {reach}")
