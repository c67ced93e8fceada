"""When an output sample sounds, by this machine's monotonic clock.

Rules: time is passed in; no device and no thread.
"""

from glowd.daemon.speaker.device import RATE_HZ

JUMP_NS = 30_000_000  # a larger difference to the device's own report is no jitter
SMOOTHING = 0.05


class DeviceClock:
    """When an output sample will sound: a line through the device's reports, smoothed, with slope RATE_HZ."""

    def __init__(self) -> None:
        self._zero_ns = 0.0  # when output sample 0 would have sounded

    def reset(self, sample: int, t_ns: int) -> None:
        """Start again: `sample` sounds at `t_ns`."""
        self._zero_ns = t_ns - sample * 1e9 / RATE_HZ

    def update(self, sample: int, t_ns: int, underflowed: bool = False) -> int:
        """Take the report that `sample` sounds at `t_ns`. Returns by how many samples the device has jumped, mostly 0.

        A device that underflowed has jumped; without that, small differences count as jitter.
        """
        off_ns = t_ns - self.ns(sample)
        if underflowed or abs(off_ns) > JUMP_NS:
            self.reset(sample, t_ns)
            return round(off_ns * RATE_HZ / 1e9)
        self._zero_ns += SMOOTHING * off_ns
        return 0

    def ns(self, sample: int) -> int:
        """When output sample `sample` sounds, as time.monotonic_ns()."""
        return max(0, round(self._zero_ns + sample * 1e9 / RATE_HZ))
