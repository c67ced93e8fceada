"""What the daemon has counted since its gateway started, as records in the snapshot: for graphs over days.

Rules of this file: as in telemetry.py. A stream's own figures go with it; these stay. Names of clients and streams are not in
them.
"""

from dataclasses import dataclass, field

from glowd.daemon.wire.records import Record

__all__ = ["BUCKETS_S", "Histogram", "Totals", "VoiceTotals"]

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""The upper bounds of the buckets of durations; one more has all that are longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram(Record):
    """Durations: how many are in each bucket and in none before it, and their sum."""

    counts: list[int] = field(default_factory=list)
    sum_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceTotals(Record):
    """Of one voice. `first_audio`: from the first frames of an utterance to its first samples; `stages`: by STAGES.

    `audio_s`: what was made; `utterances`: by their ending: played, flushed, failed, or closed with their stream; `refused`:
    streams that were not opened, because no engine had room or none was there.
    """

    audio_s: float = 0.0
    utterances: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    first_audio: Histogram = Histogram()
    stages: dict[str, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(Record):
    """`voices` by name. `starved_s` and `gaps`: audio that the device lacked, and how often, by whose fault.

    `refused`: streams that were not opened, by the name of the error.
    """

    voices: dict[str, VoiceTotals] = field(default_factory=dict)
    starved_s: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
