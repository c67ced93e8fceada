"""The harmonic layer: it subtracts from each band what source and mel predict, before the flows.

One causal network on the source models the harmonics, as a filter would; the flows model the random rest. The layer is the one
nearest to the audio. It has `forward`, with its log-determinant, and `inverse`, like the layers of a flow (coupling.py).
"""

import torch
from torch import Tensor, nn

from glowd.flow.network.bounds import bounded
from glowd.flow.network.coupling import WN


class HarmonicLayer(nn.Module):
    """x <- (x - m) * exp(g); shift m and log-scale g come from a WN on the source, conditioned by the mel."""

    def __init__(self, wn: WN, bound: float | None) -> None:
        super().__init__()
        self.wn, self.bound = wn, bound

    def forward(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """x [B, G, S], conditioning [B, C_cond, S], source [B, 2G, S] -> x's shape, log-determinant [B]."""
        shift, log_scale = self._affine(cond, source, autocast)
        return (x - shift) * log_scale.exp(), log_scale.sum((1, 2))

    def inverse(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> Tensor:
        """[B, G, S] -> the same shape."""
        shift, log_scale = self._affine(cond, source, autocast)
        return x * (-log_scale).exp() + shift

    def _affine(self, cond: Tensor, source: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(source.device.type, torch.bfloat16, enabled=autocast):
            shift, log_scale = self.wn(source, cond)
        return shift.to(source.dtype), bounded(log_scale.to(source.dtype), self.bound)
