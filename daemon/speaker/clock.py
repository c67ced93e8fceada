"""When an output sample sounds, by this machine's monotonic clock.

Rules: time is passed in; no device and no thread.
"""

from glowd.daemon.speaker.device import RATE_HZ

STEP_NS = 30_000_000  # a difference of the device's clock that is not jitter
SMOOTHING = 0.05


class DeviceClock:
    """Says when an output sample will sound: a line through what the device reports, smoothed, of slope RATE_HZ."""

    def __init__(self) -> None:
        self._zero_ns = 0.0  # when output sample 0 would have sounded

    def reset(self, sample: int, t_ns: int) -> None:
        """Begin anew: `sample` sounds at `t_ns`."""
        self._zero_ns = t_ns - sample * 1e9 / RATE_HZ

    def correct(self, sample: int, t_ns: int, dry: bool = False) -> int:
        """Take in that `sample` sounds at `t_ns`. Returns by how many samples the device has jumped, mostly 0.

        One that ran dry has jumped for certain; otherwise small differences are taken for jitter.
        """
        off_ns = t_ns - self.ns(sample)
        if dry or abs(off_ns) > STEP_NS:
            self.reset(sample, t_ns)
            return round(off_ns * RATE_HZ / 1e9)
        self._zero_ns += SMOOTHING * off_ns
        return 0

    def ns(self, sample: int) -> int:
        """When output sample `sample` sounds, as time.monotonic_ns()."""
        return max(0, round(self._zero_ns + sample * 1e9 / RATE_HZ))
