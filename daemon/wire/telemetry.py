"""What the daemon reports about itself, as records: voices in `welcome`, and the snapshot in `state` and in telemetry.

Rules of this file: no bytes, no I/O. PROTOCOL.md explains the keys. A figure that was not measured is None, never 0. Every
field of a snapshot has a default that means "not reported", so that any map can be read as a snapshot.
"""

from dataclasses import dataclass, field
from typing import Any, Self

from glowd.daemon.wire.records import INLINE, Record
from glowd.daemon.wire.totals import Totals

__all__ = [
    "STAGES", "Capacity", "Degradation", "EngineSnapshot", "EngineWork", "GatewayRole", "LinkSnapshot", "NodeSnapshot",
    "Role", "Snapshot", "SpeakerRole", "StageTimes", "Stages", "StreamSnapshot", "Underruns", "VoiceInfo", "VoiceSnapshot",
]  # fmt: skip

STAGES = {
    "client": "client sent -> gateway received",
    "transport": "gateway received -> engine received",
    "wait": "engine received -> network began",
    "network": "network began -> network done",
    "return": "network done -> gateway sent to the sinks",
    "device": "gateway sent -> sounds at the device",
}
"""The stages that audio passes, in order."""


# ---- voices


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity(Record):
    """How many streams can be open at once, and why. `measured` False: the number was configured."""

    streams: int
    measured: bool
    share: float | None = None
    """Part of the time of a chunk that a round of calls may take."""
    chunk_ms: float | None = None
    """The time that a chunk sounds."""
    alone_ms: float | None = None
    """A call for one stream; None if it took too long to be measured."""
    round_ms: float | None = None
    """The calls for all `streams`; None as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceInfo(Record):
    """A voice, as `welcome` describes it. `capacity` None: there is no limit for this voice."""

    name: str
    rate_hz: int
    hop: int
    format: dict[str, Any]
    """The mel format, by its own keys."""
    look_ahead_frames: int
    latency_ms: float
    whole_utterance: bool
    default: bool
    history_frames: int
    lead_frames: int = 0
    capacity: Capacity | None = None

    @property
    def bins(self) -> int:
        """Mel bins of a frame."""
        return int(self.format["n_mels"])


# ---- a snapshot: roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Record):
    """A process. `age_s`: since it was last heard from."""

    alive: bool = False
    age_s: float | None = None
    rss_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRole(Role):
    """The gateway. `turn_ms`: the longest pass of its loop since the last telemetry."""

    turn_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerRole(Role):
    """The speaker. `why_not`: why there is no device."""

    device: str | None = None
    latency_ms: float | None = None
    why_not: str | None


# ---- a snapshot: voices and engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation(Record):
    """What an engine that falls behind does about it. `refuses`: it takes no new streams."""

    level: int | None = None
    last_level: int | None = None
    chunk_frames: int | None = None
    refuses: bool = False
    since_ns: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWork(Record):
    """What one engine did in the last second, or the engines of a voice together."""

    streams: int | None = None
    batches_per_s: float | None = None
    audio_per_s: float | None = None
    busy: float | None = None
    stolen: float | None = None
    late: float | None = None
    level: int | None = None
    degraded: Degradation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSnapshot(Record):
    """The link to an engine on another machine. `version`: of the engine link.

    `trip_ms`: the quickest way there and back; `jitter_ms`: by how much longer nearly all take at most; `ahead_ms`: by how much
    the engine's clock is ahead of the gateway's.
    """

    version: int | None = None
    trip_ms: float | None = None
    jitter_ms: float | None = None
    ahead_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSnapshot(Record):
    """One engine. `open` counts its streams, `max_streams` is the most that it takes (None: no limit).

    `state` is ready, loading or away; `reason`: why it is not ready. `placement`: whether it gets streams, open, cordoned or
    draining. `host`: the machine from which it has joined; "": that of the daemon. `link`: the way there. `failures`:
    streams that it has given up since it last made samples.
    """

    ready: bool = False
    state: str = ""
    reason: str = ""
    device: str | None = None
    placement: str = ""
    host: str = ""
    link: LinkSnapshot | None = None
    failures: int | None = None
    open: int | None = None
    max_streams: int | None = None
    capacity: Capacity | None = None
    work: EngineWork = field(default_factory=EngineWork, metadata=INLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceSnapshot(Record):
    """One voice: the sum of its engines, then each of them. `state` and `reason` as of an engine."""

    ready: bool = False
    state: str = ""
    reason: str = ""
    default: bool = False
    open: int | None = None
    max_streams: int | None = None
    capacity: Capacity | None = None
    work: EngineWork = field(default_factory=EngineWork, metadata=INLINE)
    engines: dict[str, EngineSnapshot] = field(default_factory=dict)


# ---- a snapshot: streams


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes(Record):
    """Percentiles and mean of the newest durations of a stage, in milliseconds; `count` of them."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages(Record):
    """The times of each stage that was measured, by its name in STAGES, and the sum of their means."""

    times: dict[str, StageTimes] = field(default_factory=dict)
    mean_sum_ms: float | None = None

    def to_map(self) -> dict[str, Any]:
        """All stages, None for those that were not measured; then the sum, as `total`."""
        total = None if self.mean_sum_ms is None else {"mean_ms": self.mean_sum_ms}
        return {name: self.times[name].to_map() if name in self.times else None for name in STAGES} | {"total": total}

    @classmethod
    def from_map(cls, source: object) -> Self:
        """See Record.from_map."""
        found = source if isinstance(source, dict) else {}
        times = {name: StageTimes.from_map(found[name]) for name in STAGES if isinstance(found.get(name), dict)}
        total = found.get("total")
        return cls(times=times, mean_sum_ms=StageTimes.from_map(total).mean_ms if isinstance(total, dict) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underruns(Record):
    """The gaps that a listener heard because client or engine was late or the device gone, and their samples together."""

    client: int | None = None
    engine: int | None = None
    device: int | None = None
    missing_samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSnapshot(Record):
    """One stream."""

    client: str = ""
    engine: str = ""
    state: str = ""
    voice: str = ""
    sinks: list[str] = field(default_factory=list)
    generation: int | None = None
    frames_in: int | None = None
    queue_frames: int | None = None
    credit_frames: int | None = None
    made_samples: int | None = None
    delivered_samples: int | None = None
    ttfa_ms: float | None = None
    rtf: float | None = None
    batch: float | None = None
    stages: Stages = Stages()
    underruns: Underruns = Underruns()
    behind_ms: float | None = None
    skipped_ms: float | None = None
    latency_ms: float | None = None
    drift_ppm: float | None = None


# ---- a snapshot: the cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot(Record):
    """A node of the Ray cluster, as Ray says. `cpus`, `gpus`: what it has of them; `engines`: this daemon's, placed there.

    `state`: alive, draining (it takes nothing new and will go), or gone.
    """

    state: str = ""
    host: str = ""
    cpus: float | None = None
    gpus: float | None = None
    engines: list[str] = field(default_factory=list)


# ---- a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """The daemon. `roles`, `voices` and `streams` are by name. `stall`: why no audio is made although frames wait.

    `totals`: since the gateway started. `dialled`: by address of an engine that listens, why it is not used; "" if it is.
    """

    t_ns: int | None = None
    state: str = ""
    stall: str = ""
    uptime_s: float | None = None
    clients: int | None = None
    max_streams: int | None = None
    roles: dict[str, SpeakerRole | GatewayRole | Role] = field(default_factory=dict)
    voices: dict[str, VoiceSnapshot] = field(default_factory=dict)
    streams: dict[str, StreamSnapshot] = field(default_factory=dict)
    nodes: dict[str, NodeSnapshot] = field(default_factory=dict)
    dialled: dict[str, str] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
