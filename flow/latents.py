"""Latent noise as a function of time.

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
        digest = hashlib.blake2b(stream_seed.to_bytes(16, "little", signed=True), digest_size=8).digest()
        return int.from_bytes(digest, "little") % len(self.table)

    def rows(self, first: Tensor, groups: int) -> Tensor:
        """Noise [B, groups, G] from the rows `first` [B] (int64, any size: the table is cyclic)."""
        index = (first[:, None] + torch.arange(groups, device=first.device)) % len(self.table)
        return self.table[index]
