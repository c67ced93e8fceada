"""Validation: the likelihood, and the spectral distance, of a network on fixed segments of the validation clips."""

import torch

from glowd.flow.network.registry import Network
from glowd.flow.training.data import Clips, fixed_segments
from glowd.flow.training.objective import likelihood, validation_distance
from glowd.flow.training.settings import Settings


class Validation:
    """The validation set of a run. It is the same for the same folder, whatever the device."""

    def __init__(self, clips: Clips, settings: Settings, bf16: bool) -> None:
        self.clips, self._settings, self._bf16 = clips, settings, bf16
        self._batches = fixed_segments(clips, settings.validation_segments)

    @torch.no_grad()
    def nll(self, network: Network) -> float:
        """Negative log-likelihood, in nats per sample."""
        sizes = [len(batch.audio) for batch in self._batches]
        losses = [likelihood(network.nll, network, batch, self._bf16).item() for batch in self._batches]
        return sum(size * loss for size, loss in zip(sizes, losses)) / sum(sizes)

    def spectral(self, network: Network) -> float | None:
        """Spectral distance of the network's samples from the segments; None if it is no part of the loss."""
        if not self._settings.spectral_weight:
            return None
        return validation_distance(network, self._batches, self._settings, self._bf16)
