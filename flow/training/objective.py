"""The loss of training: likelihood, and for a second stage the distance between samples of the voice and speech.

Rules: the network gives likelihoods and samples; spectral.py compares samples with speech. All random numbers come from
`Latents`, whose state can be saved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glowd.flow.mel import MelFormat
from glowd.flow.network.registry import Network
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.training.data import ALL, Batch
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.spectral import WINDOWS, energy_distance, mel_error

VALIDATION_SEED = 1

Inverse = Callable[[Tensor, Tensor, bool], Tensor]
"""z [B, G, S], mel [B, M, L], whether convolutions run in bf16 -> audio [B, T]; WaveGlow.inverse."""


class Latents:
    """The endless latents of a training run. Which ones come next is explicit state, so a run resumes exactly."""

    def __init__(
        self, network: Network, settings: Settings, device: torch.device, seed: int, share: slice = ALL
    ) -> None:
        """A process that trains together with others gets its `share` of each batch.

        Raises TrainError for a network that cannot be sampled in one pass.
        """
        voice = invertible(network, settings)
        config = voice.config
        groups = settings.segment_samples // config.group + voice.squeeze.extra_groups
        self.shape = (config.group, groups)
        self.samples, self.sigma = settings.spectral_samples, settings.spectral_sigma or config.sigma
        self.device, self._share = device, share
        self._generator = torch.Generator(device).manual_seed(seed)

    def next(self, count: int) -> Tensor:
        """For `count` segments: z [samples * count, G, S], normal with standard deviation sigma; first samples first."""
        size = (self.samples, count, *self.shape)
        z = torch.randn(size, generator=self._generator, device=self.device)[:, self._share]
        return self.sigma * z.flatten(0, 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue with the same latents."""
        return {"generator": self._generator.get_state(), "device": self.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. On another kind of device the latents differ."""
        if state["device"] == self.device.type:
            self._generator.set_state(state["generator"])


def invertible(network: nn.Module, settings: Settings) -> WaveGlow:
    """The network, if one pass can draw samples from it, which a spectral loss needs. Raises TrainError."""
    if not isinstance(network, WaveGlow):
        raise TrainError(
            f"spectral_weight is {settings.spectral_weight:g}, which needs samples in one pass; "
            f"a {type(network).__name__} gives none; allowed: 0"
        )
    return network


class Objective(nn.Module):
    """The loss of a batch: nll_weight * NLL + spectral_weight * (D + phase_weight * P + mel_weight * mel error).

    D, P and the mel error are those of spectral.py. A module of its own, so that it can run on several devices. Raises
    TrainError, if spectral_weight is not 0, for a network that cannot be sampled or segments that are too short.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self._nll: Callable[..., Tensor] = network.nll
        if settings.spectral_weight:
            _require_length(settings)
            self._inverse: Inverse = invertible(network, settings).inverse
        if settings.compile:
            self._nll = torch.compile(self._nll, dynamic=False)
        if settings.compile and settings.spectral_weight:
            # The spectrograms stay outside: they are a few large FFTs, and the compiler leaves complex numbers alone.
            self._inverse = torch.compile(self._inverse, dynamic=False)

    def forward(self, batch: Batch, z: Tensor | None, bf16: bool) -> tuple[Tensor, Tensor]:
        """z [samples * B, G, S] if there is a spectral term -> loss, NLL: scalars. `bf16`: of the convolutions."""
        nll = self._nll(batch.audio, batch.mel, bf16)
        loss = self.settings.nll_weight * nll
        if z is not None:
            distance = sampled_distance(self._inverse, batch, z, self.settings, self.network.config.mel, bf16)
            loss = loss + self.settings.spectral_weight * distance
        return loss, nll


def sampled_distance(
    inverse: Inverse, batch: Batch, z: Tensor, settings: Settings, format: MelFormat, bf16: bool
) -> Tensor:
    """D + phase_weight * P + mel_weight * mel error (spectral.py) of the samples of z [samples * B, G, S]: a scalar."""
    count = len(z) // len(batch.audio)
    mels = batch.mel.repeat(count, 1, 1)
    samples = inverse(z, mels, bf16)
    distance = energy_distance(batch.audio, samples.chunk(count), settings.phase_weight)
    return distance + settings.mel_weight * mel_error(samples, mels, format) if settings.mel_weight else distance


@torch.no_grad()
def validation_distance(network: Network, batches: Sequence[Batch], settings: Settings, bf16: bool) -> float:
    """`sampled_distance` between fixed segments and fixed samples of a network."""
    voice = invertible(network, settings)
    # Drawn on the CPU, so that they are the same on every device.
    latents = Latents(voice, settings, torch.device("cpu"), VALIDATION_SEED)
    total = 0.0
    for batch in batches:
        count = len(batch.audio)
        z = latents.next(count).to(batch.audio.device)
        total += count * sampled_distance(voice.inverse, batch, z, settings, voice.config.mel, bf16).item()
    return total / sum(len(batch.audio) for batch in batches)


def _require_length(settings: Settings) -> None:
    if settings.segment_samples <= (reach := max(WINDOWS) // 2):
        raise TrainError(
            f"segment_samples is {settings.segment_samples}; allowed with spectral_weight: more than {reach}"
        )
