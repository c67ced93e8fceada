"""Latent noise as a function of time, and where the phase of a stream's source begins.

z depends only on (table seed, stream seed, absolute group index): it is sampled once into a table on the device, and a
stream reads it from its own starting row. So two renders of one instant are the same signal, a linear crossfade between
them is right, chunking cannot be heard, and every run can be repeated.
"""

import hashlib

import torch
from torch import Tensor

TABLE_SAMPLES = 2**21
"""95 s of audio at 22,050 Hz before a stream meets its own noise again; 8 MiB."""


class NoiseTable:
    """Standard normal noise [N, G] on a device, N * G = TABLE_SAMPLES."""

    def __init__(self, group: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        # Drawn on the CPU, so that the same seed is the same noise on every device.
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(TABLE_SAMPLES // group, group, generator=generator).to(device)

    def first_row(self, stream_seed: int) -> int:
        """The row of the table that holds group 0 of a stream."""
        return _digest(stream_seed) % len(self.table)

    def rows(self, first: Tensor, groups: int) -> Tensor:
        """Noise [B, groups, G] from the rows `first` [B] (int64, any size: the table is cyclic)."""
        index = (first[:, None] + torch.arange(groups, device=first.device)) % len(self.table)
        return self.table[index]


def first_phase(stream_seed: int) -> float:
    """The phase of a stream's source at the centre of frame 0, in cycles, 0 to 1."""
    return _digest(stream_seed, b"phase") / 2**64


def _digest(stream_seed: int, purpose: bytes = b"") -> int:
    """64 bits of a seed, others for each purpose."""
    data = stream_seed.to_bytes(16, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=purpose).digest(), "little")
