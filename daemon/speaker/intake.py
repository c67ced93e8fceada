"""The way of a stream's samples into its track: checked for order, shortened if it is late, resampled, and kept in step.

Rules: arithmetic only. What a stream counts, its own samples, and what the mixer counts, samples of the device, meet here
and nowhere else.
"""

import math
from collections import deque

import numpy as np

from glowd.daemon.runtime.resampler import Resampler
from glowd.daemon.speaker.catch_up import CatchUp
from glowd.daemon.speaker.drift import Arrival, Drift
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.time_compressor import Piece, TimeCompressor
from glowd.daemon.speaker.variable_resampler import VariableResampler

RESERVE_MS = 10
"""While less waits, a stream is not begun to be kept in step: that takes samples."""


class Intake:
    """Turns samples of a stream, from `first_sample` on, into samples of the device, and knows which is which."""

    def __init__(self, first_sample: int, rate_hz: int, device_hz: int, catch_up: CatchUp) -> None:
        self.end = first_sample
        """Index of the next sample to be pushed."""
        self.catch_up, self.drift = catch_up, Drift()
        self._rate_hz, self._device_hz = rate_hz, device_hz
        self._compressor = TimeCompressor(rate_hz)
        self._resampler, self._in_step = Resampler(rate_hz, device_hz, low_latency=True), VariableResampler(device_hz)
        self._first, self._kept = first_sample, 0  # samples that were not left out
        self._skips: deque[tuple[int, int]] = deque()
        """A sample that was kept, and how many were left out before it; those not played yet."""
        self._skipped = 0  # of those that were played

    def push(self, samples: Samples, last: bool, waiting: int, t_ns: int = 0) -> Samples:
        """Take the next samples [n] of the stream; return those for the device, of which `waiting` are in the queue.

        `t_ns`: when the frames of these samples reached the daemon, 0 if that is not known.
        """
        if self._in_step.speed != 1 or waiting >= RESERVE_MS * self._device_hz // 1000:
            self._in_step.wanted_speed = self.drift.speed
        excess = self.catch_up.excess(self.lead(waiting) + len(samples))
        self.end += len(samples)
        self.catch_up.arrived(len(samples), t_ns)
        out = [self._resample(piece) for piece in self._compressor.push(samples, excess, last)]
        if last:
            out.append(self._in_step.push(self._resampler.push(samples[:0], last=True), last=True))
        return out[0] if len(out) == 1 else np.concatenate([samples[:0], *out])

    def _resample(self, piece: Piece) -> Samples:
        self._kept += len(piece.samples)
        if piece.skipped:
            self.catch_up.skip(piece.skipped)
            self.drift.restart()
            self._skips.append((self._kept, piece.skipped))
        return self._in_step.push(self._resampler.push(piece.samples))

    def lead(self, waiting: int) -> int:
        """How many samples of the stream wait, if `waiting` samples of the device are in the queue."""
        return self.to_stream(waiting + self._in_step.held) + self._compressor.held

    def note_arrival(self, arrival: Arrival, sounds_ns: int, next_sample: int) -> None:
        """Frames have arrived, while sample `next_sample` is the next to be mixed, which sounds at `sounds_ns`."""
        until_s = (sounds_ns - arrival.t_ns) / 1e9
        first, end = arrival.first - next_sample, arrival.end - next_sample
        self.drift.arrived(arrival, until_s + first / self._rate_hz, until_s + end / self._rate_hz)

    def to_device(self, samples: int) -> int:
        """The time of so many samples of the stream, in samples of the device, rounded up."""
        return -(-samples * self._device_hz // self._rate_hz)

    def to_stream(self, samples: int) -> int:
        """The time of so many samples of the device, in samples of the stream, rounded down."""
        return samples * self._rate_hz // self._device_hz

    def sample(self, played: int) -> int:
        """The sample of the stream that follows `played` samples of the device. `played` never decreases."""
        kept = self.to_stream(math.floor(self._in_step.source(played)))
        while self._skips and self._skips[0][0] <= kept:
            self._skipped += self._skips.popleft()[1]
        return min(self._first + kept + self._skipped, self.end)
