"""The way of a stream's samples into its track: checked for order, shortened if it is late, and resampled.

Rules: arithmetic only. What a stream counts, its own samples, and what the mixer counts, samples of the device, meet here
and nowhere else.
"""

from collections import deque

import numpy as np

from glowd.daemon.runtime.resampler import Resampler
from glowd.daemon.speaker.catch_up import CatchUp
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.time_compressor import Piece, TimeCompressor


class Intake:
    """Turns samples of a stream, from `first_sample` on, into samples of the device, and knows which is which."""

    def __init__(self, first_sample: int, rate_hz: int, device_hz: int, catch_up: CatchUp) -> None:
        self.end = first_sample
        """Index of the next sample to be pushed."""
        self.catch_up = catch_up
        self._rate_hz, self._device_hz = rate_hz, device_hz
        self._compressor = TimeCompressor(rate_hz)
        self._resampler = Resampler(rate_hz, device_hz, low_latency=True)
        self._first, self._kept = first_sample, 0  # samples that were not left out
        self._skips: deque[tuple[int, int]] = deque()  # (device sample, samples left out before it), not played yet
        self._skipped = 0  # of those that were played

    def push(self, samples: Samples, last: bool, waiting: int, t_ns: int = 0) -> Samples:
        """Take the next samples [n] of the stream; return those for the device, of which `waiting` are in the queue.

        `t_ns`: when the frames of these samples reached the daemon, 0 if that is not known.
        """
        excess = self.catch_up.excess(self.lead(waiting) + len(samples))
        self.end += len(samples)
        self.catch_up.arrived(len(samples), t_ns)
        out = [self._resample(piece) for piece in self._compressor.push(samples, excess, last)]
        if last:
            out.append(self._resampler.push(samples[:0], last=True))
        return out[0] if len(out) == 1 else np.concatenate([samples[:0], *out])

    def _resample(self, piece: Piece) -> Samples:
        self._kept += len(piece.samples)
        if piece.skipped:
            self.catch_up.skip(piece.skipped)
            self._skips.append((self.to_device(self._kept), piece.skipped))
        return self._resampler.push(piece.samples)

    def lead(self, waiting: int) -> int:
        """How many samples of the stream wait, if `waiting` samples of the device are in the queue."""
        return self.to_stream(waiting) + self._compressor.held

    def to_device(self, samples: int) -> int:
        """The time of so many samples of the stream, in samples of the device, rounded up."""
        return -(-samples * self._device_hz // self._rate_hz)

    def to_stream(self, samples: int) -> int:
        """The time of so many samples of the device, in samples of the stream, rounded down."""
        return samples * self._rate_hz // self._device_hz

    def sample(self, played: int) -> int:
        """The sample of the stream that follows `played` samples of the device. `played` never decreases."""
        while self._skips and self._skips[0][0] <= played:
            self._skipped += self._skips.popleft()[1]
        return min(self._first + self.to_stream(played) + self._skipped, self.end)
