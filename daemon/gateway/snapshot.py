"""A snapshot of the daemon: what `glowctl top` and `glowctl status` show.

Rules: no socket; reads the state of others and changes nothing. The records, and what their keys mean, are in
wire/telemetry.py and PROTOCOL.md.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, TypeVar

from glowd.daemon import ipc
from glowd.daemon.config import Config
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.draining import Draining
from glowd.daemon.gateway.placement.pool import Pool
from glowd.daemon.gateway.placement.progress import Progress
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.runtime.status import READY, Nodes, RoleState
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.wire.telemetry import (
    EngineSnapshot,
    EngineWork,
    GatewayRole,
    NodeSnapshot,
    Role,
    Snapshot,
    SpeakerRole,
    StreamSnapshot,
    VoiceSnapshot,
)

T = TypeVar("T")


def combined(loads: Sequence[ipc.EngineLoad]) -> EngineWork:
    """What the engines of a voice do together: sums, the means of shares, and the worst of lateness and level."""

    def known(values: Iterable[T | None]) -> list[T]:
        return [value for value in values if value is not None]

    busy, stolen = known(load.busy for load in loads), known(load.stolen for load in loads)
    batches, audio = known(load.batches_per_s for load in loads), known(load.audio_per_s for load in loads)
    return EngineWork(
        streams=sum(load.streams for load in loads) if loads else None,
        batches_per_s=sum(batches) if batches else None,
        audio_per_s=sum(audio) if audio else None,
        busy=sum(busy) / len(busy) if busy else None,
        stolen=sum(stolen) / len(stolen) if stolen else None,
        late=max(known(load.late for load in loads), default=None),
        level=max(known(load.level for load in loads), default=None),
        degraded=max(known(load.degraded for load in loads), key=lambda one: one.level or 0, default=None),
    )


def most_streams(engines: Iterable[EngineHandle], counts: Mapping[str, int]) -> int | None:
    """The most streams that may be open in engines that are alive; None without a limit.

    Those that get no streams have no room beside the ones that they have: `counts`, by name.
    """
    found = [
        most if engine.placement == "open" else min(most, counts.get(engine.name, 0))
        for engine in engines
        if (most := engine.max_streams) is not None
    ]
    return sum(found) if found else None


class SnapshotTaker:
    """Takes snapshots of the gateway. Owner: the gateway's only thread."""

    def __init__(
        self,
        config: Config,
        clients: Sized,
        streams: StreamRegistry,
        draining: Draining,
        progress: Progress,
        pools: Mapping[str, Pool],
        engines: Mapping[str, EngineHandle],
        speaker: SpeakerHandle,
        stopping: threading.Event,
        now_ns: Callable[[], int],
    ) -> None:
        self.turn_ms: float | None = None
        """The longest pass of the gateway's loop since the last telemetry."""
        self.nodes: dict[str, NodeSnapshot] = {}
        """The nodes of the Ray cluster, as the cluster role has said."""
        self.dialled: Callable[[], dict[str, str]] = dict
        """By place that is dialled: why its engine is not used."""
        self._config, self._clients, self._streams, self._pools = config, clients, streams, pools
        self._draining, self._progress = draining, progress
        self._engines, self._speaker, self._stopping = engines, speaker, stopping
        self._now_ns, self._started_ns = now_ns, now_ns()

    def use(self, config: Config) -> None:
        """Use other settings."""
        self._config = config

    def hear_of_cluster(self, news: Nodes | RoleState) -> None:
        """The cluster role has said which nodes there are, or is away: then nobody knows."""
        if isinstance(news, Nodes):
            self.nodes = {name: NodeSnapshot.from_map(node) for name, node in news.nodes.items()}
        elif news.state != READY:
            self.nodes = {}

    @property
    def streams(self) -> int:
        """How many streams are open: a snapshot takes some 50 us for each."""
        return len(self._streams)

    def take(self) -> Snapshot:
        """The daemon as it is now."""
        return replace(self._daemon(), streams={stream.name: _stream(stream) for stream in self._streams})

    def map_by_streams(self) -> Generator[None, None, dict[str, Any]]:
        """The same as a map, in steps: it yields after each stream, which may take some time, and returns the map."""
        streams = {}
        for stream in self._streams:
            streams[stream.name] = _stream(stream).to_map()
            yield
        return self._daemon().to_map() | {"streams": streams}

    def _daemon(self) -> Snapshot:
        """Everything but the streams."""
        now_ns, counts = self._now_ns(), self._streams.counts()
        return Snapshot(
            t_ns=now_ns,
            state=self._state(now_ns),
            stall=self._progress.stall,
            uptime_s=(now_ns - self._started_ns) / 1e9,
            clients=len(self._clients),
            max_streams=self._config.server.max_streams,
            roles=self._roles(now_ns),
            voices={name: self._voice(pool, counts, now_ns) for name, pool in self._pools.items()},
            nodes=self.nodes,
            dialled=self.dialled(),
            totals=self._streams.counts_of_all.record(),
        )

    def _state(self, now_ns: int) -> str:
        if self._stopping.is_set():
            return "stopping"
        if self._draining.placement != "open":
            return self._draining.placement
        engines = [engine for pool in self._pools.values() for engine in pool.engines]
        if any(engine.is_first_load for engine in engines):
            return "loading"
        is_fine = all(engine.is_alive(now_ns) and not (engine.load and engine.load.degraded) for engine in engines)
        return "ready" if is_fine and not self._progress.stall else "degraded"

    def _roles(self, now_ns: int) -> dict[str, Role]:
        gateway = GatewayRole(alive=True, age_s=0.0, rss_bytes=rss_bytes(), turn_ms=self.turn_ms)
        engines = {f"engine:{name}": _role(engine, now_ns) for name, engine in self._engines.items()}
        return {"gateway": gateway, **engines, "speaker": _speaker(self._speaker, now_ns)}

    def _voice(self, pool: Pool, counts: Mapping[str, int], now_ns: int) -> VoiceSnapshot:
        alive, capacity = pool.alive_engines(now_ns), pool.capacity(now_ns)
        return VoiceSnapshot(
            ready=bool(alive),
            state=pool.state(now_ns),
            reason=pool.reason(now_ns),
            default=pool.is_default,
            open=sum(counts.get(engine.name, 0) for engine in pool.engines),
            max_streams=most_streams(alive, counts),
            capacity=capacity,
            work=combined([engine.load for engine in alive if engine.load]),
            engines={engine.name: _engine(engine, counts.get(engine.name, 0), now_ns) for engine in pool.engines},
        )


def _engine(engine: EngineHandle, open_streams: int, now_ns: int) -> EngineSnapshot:
    is_alive = engine.is_alive(now_ns)  # what an engine that is lost reported about its work is past
    return EngineSnapshot(
        ready=is_alive,
        state=engine.state(now_ns),
        reason=engine.reason(now_ns),
        device=engine.device or None,
        placement=engine.placement,
        host="" if engine.origin is None else engine.origin.host,
        link=engine.link.snapshot() if engine.link and is_alive else None,
        failures=engine.failures,
        open=open_streams,
        max_streams=engine.max_streams,
        capacity=engine.capacity,
        work=combined([engine.load] if is_alive and engine.load else []),
    )


def _speaker(speaker: SpeakerHandle, now_ns: int) -> SpeakerRole:
    role, device = _role(speaker, now_ns), speaker.device
    return SpeakerRole(
        alive=role.alive,
        age_s=role.age_s,
        rss_bytes=role.rss_bytes,
        device=None if device is None else device.name,
        latency_ms=None if device is None else device.latency_ms,
        why_not=speaker.why_not if device is None else None,
    )


def _role(handle: EngineHandle | SpeakerHandle, now_ns: int) -> Role:
    return Role(
        alive=handle.is_alive(now_ns),
        age_s=None if handle.last_seen_ns is None else (now_ns - handle.last_seen_ns) / 1e9,
        rss_bytes=None if handle.load is None else handle.load.rss_bytes,
    )


def _stream(stream: Stream) -> StreamSnapshot:
    state = stream.session.state
    utterance, meter = state.utterance, state.meter
    return StreamSnapshot(
        client=stream.owner.name,
        engine=stream.engine.name,
        state=state.state,
        voice=state.voice,
        sinks=list(state.asked.sinks),
        generation=utterance.number,
        frames_in=utterance.frames_in,
        queue_frames=utterance.frames_in - utterance.samples_made // state.limits.hop,
        credit_frames=utterance.granted_frames - utterance.frames_in,
        made_samples=utterance.samples_made,
        delivered_samples=state.sinks.delivered_samples,
        ttfa_ms=meter.ttfa_ms,
        rtf=meter.rtf,
        batch=meter.batch,
        stages=meter.stages,
        underruns=meter.underruns,
        behind_ms=round(meter.behind_ms, 1),
        skipped_ms=round(meter.skipped_ms, 1),
        latency_ms=None if meter.latency_ms is None else round(meter.latency_ms, 1),
        drift_ppm=None if meter.drift_ppm is None else round(meter.drift_ppm, 1),
    )
