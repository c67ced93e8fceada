"""The samples of one stream that wait to be played, at the rate of the device.

Rules: arithmetic only.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


class SampleQueue:
    """Samples in order. `played` counts those that were taken; `len` is how many will still be."""

    def __init__(self) -> None:
        self.played = 0
        self._chunks: deque[Samples] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, samples: Samples) -> None:
        """Append samples [n]; the array is kept, not copied."""
        if len(samples):
            self._chunks.append(samples)
            self._length += len(samples)

    def truncate(self, keep: int) -> None:
        """Keep only the next `keep` samples."""
        self._length = keep

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
        self.played += done
        self._length -= done
