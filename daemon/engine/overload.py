"""What an engine does when it falls behind: larger chunks first, then no new streams; and back once it keeps pace.

Rules: no clock, no network; time is passed in. The levels, for chunks of 4 frames that may grow to 16:

    level    0          1          2           3
    chunk    4 frames   8 frames   16 frames   16 frames, and new streams are refused

A chunk of twice the size halves the number of calls, and with it their fixed cost; the price is latency.

The level rises when at least LATE_SHARE of the chunks of a PERIOD were late, but at most once in SETTLE, so that the last
change can take effect. It falls when at most CALM_SHARE were late in each period of the last `hold`. The hold is HOLD; it
doubles, up to MAX_HOLD, each time a fall was too early, so that a lasting load gets a lasting level. Between the two shares
the level stays. So rises are at least SETTLE apart, a fall is at least HOLD after any change, and without load the level
always returns to 0.
"""

from glowd.daemon.wire.telemetry import Degradation

PERIOD_NS = 1_000_000_000
SETTLE_NS = 2 * PERIOD_NS
HOLD_NS, MAX_HOLD_NS = 5 * PERIOD_NS, 60 * PERIOD_NS
LATE_SHARE, CALM_SHARE = 0.5, 0.1


class Overload:
    """The level of one engine. `late_share` is that of the last period; None if it had no chunk."""

    def __init__(self, chunk_frames: int, max_chunk_frames: int, now_ns: int) -> None:
        self._sizes = [chunk_frames]
        while self._sizes[-1] < max_chunk_frames:
            self._sizes.append(min(2 * self._sizes[-1], max_chunk_frames))
        self.level, self.since_ns, self.reason = 0, now_ns, ""
        self.late_share: float | None = None
        self._hold_ns, self._lowered_ns = HOLD_NS, -1
        self._began_ns = self._unrest_ns = now_ns
        self._chunks = self._late = self._worst_ns = 0

    @property
    def last_level(self) -> int:
        """The level at which new streams are refused."""
        return len(self._sizes)

    @property
    def refuses(self) -> bool:
        """Whether new streams are refused."""
        return self.level == self.last_level

    @property
    def chunk_frames(self) -> int:
        """Frames in the smallest step at this level."""
        return self._sizes[min(self.level, len(self._sizes) - 1)]

    def add_chunk(self, late_ns: int) -> None:
        """Count a chunk that was done `late_ns` after its deadline; 0 or less is in time."""
        self._chunks += 1
        self._late += late_ns > 0
        self._worst_ns = max(self._worst_ns, late_ns)

    def update(self, now_ns: int) -> bool:
        """Change the level if a period is over and calls for it; returns whether it changed."""
        if now_ns - self._began_ns < PERIOD_NS:
            return False
        share = self._late / self._chunks if self._chunks else 0.0
        self.late_share = share if self._chunks else None
        before, seconds = self.level, (now_ns - self._began_ns) / 1e9
        if share > CALM_SHARE:
            self._unrest_ns = now_ns
        if share >= LATE_SHARE and self.level < self.last_level and now_ns - self.since_ns >= SETTLE_NS:
            late = f"{share:.0%} of the chunks of {seconds:.0f} s were late, by up to {self._worst_ns / 1e6:.0f} ms"
            self._raise(now_ns, late)
        elif self.level and now_ns - max(self._unrest_ns, self.since_ns) >= self._hold_ns:
            self._lower(now_ns)
        self._began_ns, self._chunks, self._late, self._worst_ns = now_ns, 0, 0, 0
        return self.level != before

    def _raise(self, now_ns: int, reason: str) -> None:
        if self._lowered_ns == self.since_ns:  # the step before this one was down
            too_early = now_ns - self.since_ns <= self._hold_ns
            self._hold_ns = min(2 * self._hold_ns, MAX_HOLD_NS) if too_early else HOLD_NS
        self.level, self.since_ns, self.reason = self.level + 1, now_ns, reason

    def _lower(self, now_ns: int) -> None:
        self.level, self.since_ns, self._lowered_ns = self.level - 1, now_ns, now_ns
        if not self.level:
            self.reason = ""

    def __str__(self) -> str:
        if not self.level:
            return "the engine keeps pace again"
        refuses = ", no new streams" if self.refuses else ""
        return f"overload level {self.level}: chunks of {self.chunk_frames} frames{refuses}, because {self.reason}"

    def describe(self) -> Degradation | None:
        """For telemetry; None at level 0."""
        if not self.level:
            return None
        return Degradation(
            level=self.level,
            last_level=self.last_level,
            chunk_frames=self.chunk_frames,
            refuses=self.refuses,
            since_ns=self.since_ns,
            reason=self.reason,
        )
