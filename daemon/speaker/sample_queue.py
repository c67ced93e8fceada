"""The samples of one stream that wait to be played.

Rules: arithmetic only. Sample indices are absolute in the stream's utterance.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleQueue:
    """Samples in order. `head` is the index of the next one to play; `len` is how many will be played."""

    def __init__(self, head: int) -> None:
        self.head = head
        self._chunks: deque[Samples] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def end(self) -> int:
        """Index of the next sample to be pushed."""
        return self.head + self._length

    def push(self, samples: Samples) -> None:
        """Append samples [n]; the array is kept, not copied."""
        if len(samples):
            self._chunks.append(samples)
            self._length += len(samples)

    def truncate(self, keep: int) -> int:
        """Keep only the next `keep` samples; returns how many were dropped."""
        dropped = self._length - keep
        self._length = keep
        return dropped

    def mix_into(self, out: Samples, factor: float | Samples, scratch: Samples) -> None:
        """Take the next samples, as many as `out` [n] has, and add them to it times `factor` (one, or [n])."""
        done = 0
        while done < len(out):
            chunk = self._chunks[0]
            run = min(len(chunk), len(out) - done)
            part = factor if isinstance(factor, float) else factor[done : done + run]
            np.multiply(chunk[:run], part, out=scratch[:run])
            out[done : done + run] += scratch[:run]
            done += run
            if run == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = chunk[run:]
        self.head += done
        self._length -= done
