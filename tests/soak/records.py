"""What is found in a soak: minute by minute, and all in all.

Rules: thread-safe; no figure is kept for each utterance, so that a soak may last for days.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field

KEPT_FAULTS = 50


@dataclass
class Minute:
    """What has happened since the last minute ended."""

    counts: Counter[str] = field(default_factory=Counter)
    late_s: list[float] = field(default_factory=list)
    """Of each chunk: from the arrival of its frames to its samples' leaving, in time that was not disturbed."""


@dataclass(frozen=True)
class Gap:
    """The device lacked samples. `stall_ms`: how late the sentinels woke around it, real-time and plain."""

    at_s: float
    cause: str
    count: int
    is_disturbed: bool
    stall_ms: tuple[float, float]


class Records:
    """Counts by name, faults in words, and the gaps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.totals: Counter[str] = Counter()
        self.faults: list[str] = []
        self.gaps: list[Gap] = []
        self._minute = Minute()

    def count(self, what: str, by: int = 1) -> None:
        """Something has happened."""
        with self._lock:
            self.totals[what] += by
            self._minute.counts[what] += by

    def fault(self, kind: str, text: str) -> None:
        """Something is wrong. The first ones are kept in words."""
        self.count(f"wrong {kind}")
        with self._lock:
            if len(self.faults) < KEPT_FAULTS:
                self.faults.append(f"{kind}: {text}")

    def gap(self, gap: Gap) -> None:
        """The device lacked samples."""
        self.count(f"gaps {'announced' if gap.is_disturbed else 'outside'} by {gap.cause}", gap.count)
        with self._lock:
            self.gaps.append(gap)

    def late(self, times_s: list[float]) -> None:
        """Chunks of an utterance that nothing has disturbed came so late."""
        with self._lock:
            self._minute.late_s += times_s

    def end_minute(self) -> Minute:
        """What has happened since the last call."""
        with self._lock:
            ended, self._minute = self._minute, Minute()
        return ended
