"""When an output sample sounds, by this machine's monotonic clock.

Rules: time is passed in; no device and no thread.

A device reports how much it still has to play, and is seldom up to date: it learns so by its periods, or when a sound server
asks for more. A report is late then by as much as the server was, 40 ms now and then, and by hardly less than nothing. So the
earliest reports of some seconds tell when a sample sounds; their mean would wander by milliseconds, and streams whose clocks
are followed (drift.py) with it. The first reports are no such: while a sound server fills its buffer, they may be 30 ms early.
Whether the device has jumped is told by the mean.
"""

from collections import deque

JUMP_NS = 30_000_000  # a larger difference to the device's own report is no jitter ...
COARSE = 1 / 3  # ... unless its buffer is long: reports come by its periods, and are off by a quarter of the buffer
SMOOTHING = 0.05
WINDOW_NS, WINDOWS = 500_000_000, 10
"""The second report by earliness counts of each window, so that one that is wrong does not; and the earliest of so many."""
FILLING_NS = 500_000_000
"""How long a device may take until its buffer is full."""


class DeviceClock:
    """When an output sample will sound: a line through the device's reports, with slope `rate_hz`."""

    def __init__(self, rate_hz: int, t_ns: int) -> None:
        """Until the first report, sample 0 sounds at `t_ns`."""
        self._rate_hz, self._jump_ns = rate_hz, float(JUMP_NS)
        self._zero_ns = self._mean_ns = float(t_ns)  # when output sample 0 would have sounded
        self._begin(t_ns)

    def _begin(self, t_ns: int) -> None:
        """Forget all reports."""
        self._opened_ns, self._earliest = t_ns + FILLING_NS, list[float]()
        self._early = deque[float](maxlen=WINDOWS)

    def expect(self, latency_ms: float) -> None:
        """The device buffers so much."""
        self._jump_ns = max(JUMP_NS, COARSE * 1e6 * latency_ms)

    def reset(self, sample: int, t_ns: int) -> int:
        """Start again: `sample` sounds at `t_ns`. Returns by how many samples that is later than it was to sound."""
        zero_ns = self._zero_of(sample, t_ns)
        late_ns = zero_ns - self._mean_ns
        self._zero_ns = self._mean_ns = zero_ns
        self._begin(t_ns)
        return round(late_ns * self._rate_hz / 1e9)

    def update(self, sample: int, t_ns: int, underflowed: bool = False) -> int:
        """Take the report that `sample` sounds at `t_ns`. Returns by how many samples the device has jumped, mostly 0.

        A device that underflowed has jumped; without that, small differences count as jitter.
        """
        zero_ns = self._zero_of(sample, t_ns)
        off_ns = zero_ns - self._mean_ns
        if underflowed or abs(off_ns) > self._jump_ns:
            return self.reset(sample, t_ns)
        self._mean_ns += SMOOTHING * off_ns
        self._note(zero_ns, t_ns)
        if self._early:
            self._zero_ns += SMOOTHING * (min(self._early) - self._zero_ns)
        else:
            self._zero_ns = self._mean_ns
        return 0

    def _note(self, zero_ns: float, t_ns: int) -> None:
        if t_ns < self._opened_ns:
            return
        self._earliest = sorted([*self._earliest, zero_ns])[:2]
        if t_ns - self._opened_ns >= WINDOW_NS:
            self._early.append(self._earliest[-1])
            self._opened_ns, self._earliest = t_ns, []

    def ns(self, sample: int) -> int:
        """When output sample `sample` sounds, as time.monotonic_ns()."""
        return max(0, round(self._zero_ns + sample * 1e9 / self._rate_hz))

    def _zero_of(self, sample: int, t_ns: int) -> float:
        """When sample 0 would have sounded."""
        return t_ns - sample * 1e9 / self._rate_hz
