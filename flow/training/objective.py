"""The loss of training: likelihood, and for a second stage the distance between samples of the voice and speech.

A voice with a source is told its pitch and voicing as the mel shows them, in both terms. In the likelihood its phase is that
of the recording; samples are drawn as the voice speaks, with a phase that runs freely from a random beginning.

Rules: the network gives likelihoods and samples; spectral.py and comb.py compare samples with speech. All random numbers come
from `Latents`, whose state can be saved.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glowd.flow.network.registry import Network
from glowd.flow.network.source import Source
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.training.comb import comb_difference, window_for
from glowd.flow.training.data import ALL, Batch
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.spectral import energy_distance, mel_error, windows_at

VALIDATION_SEED = 1

Inverse = Callable[[Tensor, Tensor, bool, Source | None], Tensor]
"""z [B, G, S], mel [B, M, L], whether convolutions run in bf16, source of [B, T] -> audio [B, T]; WaveGlow.inverse."""


class Latent(NamedTuple):
    """What samples are drawn from."""

    z: Tensor
    """[samples * B, G, S], normal with standard deviation sigma; first samples first."""
    offset: Tensor | None = None
    """Where the phase of each begins, in cycles [samples * B]; None for a voice without a source."""


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
        self.device, self._share, self._has_phase = device, share, config.source is not None
        self._generator = torch.Generator(device).manual_seed(seed)

    def next(self, count: int) -> Latent:
        """For `count` segments."""
        size = (self.samples, count, *self.shape)
        z = torch.randn(size, generator=self._generator, device=self.device)[:, self._share]
        return Latent(self.sigma * z.flatten(0, 1), self._offset(count) if self._has_phase else None)

    def _offset(self, count: int) -> Tensor:
        offset = torch.rand((self.samples, count), generator=self._generator, device=self.device)
        return offset[:, self._share].flatten()

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
    """The loss of a batch, nll_weight * NLL + spectral_weight * S, where

        S = D + phase_weight * P + mel_weight * mel error + comb_weight * C

    D, P and the mel error are those of spectral.py, C that of comb.py. A module of its own, so that it can run on several
    devices. Raises TrainError, if spectral_weight is not 0, for a network that cannot be sampled or segments that are too short.
    """

    def __init__(self, network: Network, settings: Settings) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self._nll: Callable[..., Tensor] = network.nll
        if settings.spectral_weight:
            voice = invertible(network, settings)
            _require_length(settings, voice.config)
            self._inverse: Inverse = voice.inverse
        if settings.compile:
            self._nll = torch.compile(self._nll, dynamic=False)
        if settings.compile and settings.spectral_weight:
            # The spectrograms stay outside: they are a few large FFTs, and the compiler leaves complex numbers alone.
            self._inverse = torch.compile(self._inverse, dynamic=False)

    def forward(self, batch: Batch, latent: Latent | None, bf16: bool) -> tuple[Tensor, Tensor]:
        """A latent if there is a spectral term -> loss, NLL: scalars. `bf16`: of the convolutions."""
        nll = likelihood(self._nll, self.network, batch, bf16)
        loss = self.settings.nll_weight * nll
        if latent is not None:
            voice = invertible(self.network, self.settings)
            distance = sampled_distance(self._inverse, voice, batch, latent, self.settings, bf16)
            loss = loss + self.settings.spectral_weight * distance
        return loss, nll


def likelihood(nll: Callable[..., Tensor], network: nn.Module, batch: Batch, bf16: bool) -> Tensor:
    """Negative log-likelihood of a batch by `nll`, which is the network's own or compiled: nats per sample, a scalar."""
    source = network.free_source(batch.mel) if isinstance(network, WaveGlow) else None
    if source is None or batch.phase is None:
        return nll(batch.audio, batch.mel, bf16)
    return nll(batch.audio, batch.mel, bf16, source._replace(phase=batch.phase))


def sampled_distance(
    inverse: Inverse, voice: WaveGlow, batch: Batch, latent: Latent, settings: Settings, bf16: bool
) -> Tensor:
    """S of `Objective`, of samples that are drawn here: a scalar.

    `inverse` is the voice's own or compiled.
    """
    count = len(latent.z) // len(batch.audio)
    mels = batch.mel.repeat(count, 1, 1)
    samples = inverse(latent.z, mels, bf16, voice.free_source(mels, latent.offset))
    windows = windows_at(voice.config.mel.rate_hz)
    distance = energy_distance(batch.audio, samples.chunk(count), settings.phase_weight, windows)
    if settings.mel_weight:
        distance = distance + settings.mel_weight * mel_error(samples, mels, voice.config.mel)
    if settings.comb_weight:
        distance = distance + settings.comb_weight * comb_difference(batch.audio, samples, voice.config.group)
    return distance


@torch.no_grad()
def validation_distance(network: Network, batches: Sequence[Batch], settings: Settings, bf16: bool) -> float:
    """`sampled_distance` between fixed segments and fixed samples of a network."""
    voice = invertible(network, settings)
    # Drawn on the CPU, so that they are the same on every device.
    latents = Latents(voice, settings, torch.device("cpu"), VALIDATION_SEED)
    total = 0.0
    for batch in batches:
        count = len(batch.audio)
        z, offset = latents.next(count)
        latent = Latent(z.to(batch.audio.device), offset)
        total += count * sampled_distance(voice.inverse, voice, batch, latent, settings, bf16).item()
    return total / sum(len(batch.audio) for batch in batches)


def _require_length(settings: Settings, config: WaveGlowConfig) -> None:
    windows = (*windows_at(config.mel.rate_hz), *([window_for(config.group)] if settings.comb_weight else []))
    if settings.segment_samples <= (reach := max(windows) // 2):
        raise TrainError(
            f"segment_samples is {settings.segment_samples}; allowed with spectral_weight"
            f"{' and comb_weight' if settings.comb_weight else ''}: more than {reach}"
        )
