"""What the gateway counts over all streams, since it started.

Rules: no socket, no clock; adding is quick, because it is done for each chunk. What is published, and what it means, is in
wire/totals.py.
"""

from bisect import bisect_left
from collections import Counter

from glowd.daemon.wire import Code
from glowd.daemon.wire.telemetry import STAGES
from glowd.daemon.wire.totals import BUCKETS_S, Histogram, Totals, VoiceTotals

ENDINGS, CAUSES = ("played", "flushed", "failed", "closed"), ("client", "engine", "device")
USUAL_REFUSALS = (Code.AT_CAPACITY, Code.ENGINE_LOST, Code.SINK_UNAVAILABLE, Code.UNKNOWN_VOICE)
"""Counted from 0 on, so that the first one is an increase; others appear when they happen."""
BOUNDS_NS = [round(1e9 * bound) for bound in BUCKETS_S]


class Durations:
    """A histogram that grows."""

    def __init__(self) -> None:
        self._counts, self._sum_ns = [0] * (len(BOUNDS_NS) + 1), 0

    def add(self, duration_ns: int) -> None:
        """One more. A bound belongs to the bucket before it."""
        self._counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self._sum_ns += duration_ns

    @property
    def is_measured(self) -> bool:
        """Whether there were any."""
        return any(self._counts)

    def record(self) -> Histogram:
        """As it is now."""
        return Histogram(counts=list(self._counts), sum_s=self._sum_ns / 1e9)


class VoiceCounts:
    """Counts of one voice; its streams add to them."""

    def __init__(self) -> None:
        self.audio_s = 0.0
        self.utterances = dict.fromkeys(ENDINGS, 0)
        self.refused = 0
        self.first_audio = Durations()
        self.starved_s, self.gaps = dict.fromkeys(CAUSES, 0.0), dict.fromkeys(CAUSES, 0)
        self.stages = {stage: Durations() for stage in STAGES}

    def starve(self, cause: str, seconds: float) -> None:
        """A listener had to wait for audio."""
        self.starved_s[cause] += seconds
        self.gaps[cause] += 1

    def record(self) -> VoiceTotals:
        """As it is now."""
        return VoiceTotals(
            audio_s=self.audio_s,
            utterances=dict(self.utterances),
            refused=self.refused,
            first_audio=self.first_audio.record(),
            stages={name: durations.record() for name, durations in self.stages.items() if durations.is_measured},
        )


class Counts:
    """All counts. Owner: the gateway's only thread."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter({code.name: 0 for code in USUAL_REFUSALS})
        self._voices: dict[str, VoiceCounts] = {}

    def voice(self, name: str) -> VoiceCounts:
        """Those of a voice; they stay when a reload removes it."""
        return self._voices.setdefault(name, VoiceCounts())

    def record(self) -> Totals:
        """As they are now."""
        voices = self._voices.values()
        return Totals(
            voices={name: counts.record() for name, counts in self._voices.items()},
            starved_s={cause: sum(counts.starved_s[cause] for counts in voices) for cause in CAUSES},
            gaps={cause: sum(counts.gaps[cause] for counts in voices) for cause in CAUSES},
            refused=dict(self.refused),
        )
