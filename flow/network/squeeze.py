"""Squeezes: audio [B, T] <-> groups [B, G, S], orthonormal, so their log-determinant is 0.

Polyphase is WaveGlow's own (Prenger et al. 2018, section 2): G neighbouring samples become the G rows of one group.
Lapped is the streaming voice's: an MDCT with time-domain aliasing cancellation (Princen & Bradley 1986), whose rows are
frequency bands and whose overlap-add is a crossfade:

    group s sees      |---- G ----|---- G ----|
    group s + 1 sees              |---- G ----|---- G ----|
    block s of the audio          ^ second half of group s + first half of group s + 1

so S = T / G + 1 (silence is assumed around the signal), and a block is complete one group after it began.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.network.initial import initial


class Squeeze(Protocol):
    """What the network needs of a squeeze."""

    extra_groups: int
    """Groups beyond T / G; also the delay of a block in groups."""

    def forward(self, audio: Tensor) -> Tensor:
        """[B, T] -> [B, G, S]."""

    def inverse(self, groups: Tensor) -> Tensor:
        """[B, G, S] -> [B, T]."""


class PolyphaseSqueeze(nn.Module):
    """[B, T] -> [B, G, T / G]: row r of group s is sample s * G + r."""

    extra_groups = 0

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, audio: Tensor) -> Tensor:
        """[B, T] -> [B, G, T / G]."""
        return audio.unflatten(1, (-1, self.group)).transpose(1, 2)

    def inverse(self, groups: Tensor) -> Tensor:
        """[B, G, S] -> [B, S * G]."""
        return groups.transpose(1, 2).flatten(1)


def mdct_basis(group: int) -> Tensor:
    """Orthonormal MDCT basis [G, 2G], sine window: basis @ basis.T is the identity."""
    sample = torch.arange(2 * group)[None].double()
    band = torch.arange(group)[:, None].double()
    window = torch.sin(math.pi * (sample + 0.5) / (2 * group))
    cosine = torch.cos(math.pi / group * (sample + 0.5 + group / 2) * (band + 0.5))
    return (math.sqrt(2 / group) * window * cosine).float()


class LappedSqueeze(nn.Module):
    """[B, T] -> [B, G, T / G + 1]: G bands per group, windows of 2G. Inverse of forward is the identity.

    Forward of inverse is the identity too, except for the aliasing of the first and the last group.
    """

    extra_groups = 1
    basis: Tensor

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group
        basis = initial((group, 1, 2 * group), lambda: mdct_basis(group)[:, None])
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, T] -> [B, G, T / G + 1]."""
        return F.conv1d(F.pad(audio[:, None], (self.group, self.group)), self.basis, stride=self.group)

    def inverse(self, groups: Tensor) -> Tensor:
        """[B, G, S] -> [B, (S - 1) * G]."""
        return F.conv_transpose1d(groups, self.basis, stride=self.group)[:, 0, self.group : -self.group]


SQUEEZES: dict[str, type[PolyphaseSqueeze] | type[LappedSqueeze]] = {
    "polyphase": PolyphaseSqueeze,
    "lapped": LappedSqueeze,
}
