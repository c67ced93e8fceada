"""When an output sample sounds, by this machine's monotonic clock.

Rules: time is passed in; no device and no thread.
"""

JUMP_NS = 30_000_000  # a larger difference to the device's own report is no jitter ...
COARSE = 1 / 3  # ... unless its buffer is long: reports come by its periods, and are off by a quarter of the buffer
SMOOTHING = 0.05


class DeviceClock:
    """When an output sample will sound: a line through the device's reports, smoothed, with slope `rate_hz`."""

    def __init__(self, rate_hz: int, t_ns: int) -> None:
        """Until the first report, sample 0 sounds at `t_ns`."""
        self._rate_hz, self._jump_ns = rate_hz, float(JUMP_NS)
        self._zero_ns = float(t_ns)  # when output sample 0 would have sounded

    def expect(self, latency_ms: float) -> None:
        """The device buffers so much."""
        self._jump_ns = max(JUMP_NS, COARSE * 1e6 * latency_ms)

    def reset(self, sample: int, t_ns: int) -> int:
        """Start again: `sample` sounds at `t_ns`. Returns by how many samples that is later than it was to sound."""
        late_ns = t_ns - self._ns(sample)
        self._zero_ns += late_ns
        return round(late_ns * self._rate_hz / 1e9)

    def update(self, sample: int, t_ns: int, underflowed: bool = False) -> int:
        """Take the report that `sample` sounds at `t_ns`. Returns by how many samples the device has jumped, mostly 0.

        A device that underflowed has jumped; without that, small differences count as jitter.
        """
        off_ns = t_ns - self._ns(sample)
        if underflowed or abs(off_ns) > self._jump_ns:
            return self.reset(sample, t_ns)
        self._zero_ns += SMOOTHING * off_ns
        return 0

    def ns(self, sample: int) -> int:
        """When output sample `sample` sounds, as time.monotonic_ns()."""
        return max(0, round(self._ns(sample)))

    def _ns(self, sample: int) -> float:
        return self._zero_ns + sample * 1e9 / self._rate_hz
