"""A snapshot of the daemon: what `glowctl top` and `glowctl status` show.

Rules: no socket; reads the state of others and changes nothing. The records, and what their keys mean, are in
wire/telemetry.py and PROTOCOL.md.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from glowd.daemon import ipc
from glowd.daemon.config import Config
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.router import Desk
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.wire.telemetry import (
    EngineSnapshot,
    EngineWork,
    GatewayRole,
    Role,
    Snapshot,
    SpeakerRole,
    StreamSnapshot,
    VoiceSnapshot,
)

T = TypeVar("T")


def combined(loads: Sequence[ipc.EngineLoad]) -> EngineWork:
    """What the engines of a voice do together: sums, means of shares, and of lateness the worst."""

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


class Snapshots:
    """Takes snapshots. Owner: the gateway's only thread."""

    def __init__(self, config: Config, desk: Desk, engines: Mapping[str, Engine], stopping: threading.Event) -> None:
        self.turn_ms: float | None = None
        """The longest turn of the gateway's loop, lately."""
        self._config, self._desk, self._engines, self._stopping = config, desk, engines, stopping
        self._started_ns = time.monotonic_ns()

    def take(self) -> Snapshot:
        """The daemon as it is now."""
        now_ns = time.monotonic_ns()
        return Snapshot(
            t_ns=now_ns,
            state=self._state(now_ns),
            uptime_s=(now_ns - self._started_ns) / 1e9,
            clients=len(self._desk.peers),
            max_streams=self._config.server.max_streams,
            roles=self._roles(now_ns),
            voices={name: self._voice(pool, now_ns) for name, pool in self._desk.pools.items()},
            streams={name: self._stream(name) for name in self._desk.streams.sessions},
        )

    def _state(self, now_ns: int) -> str:
        if self._stopping.is_set():
            return "stopping"
        engines = self._engines.values()
        fine = all(engine.there(now_ns) and not (engine.load and engine.load.degraded) for engine in engines)
        return "ready" if fine else "degraded"

    def _roles(self, now_ns: int) -> dict[str, Role]:
        gateway = GatewayRole(alive=True, age_s=0.0, rss_bytes=rss_bytes(), turn_ms=self.turn_ms)
        engines = {f"engine:{name}": _role(engine, now_ns) for name, engine in self._engines.items()}
        return {"gateway": gateway, **engines, "speaker": self._speaker(now_ns)}

    def _speaker(self, now_ns: int) -> SpeakerRole:
        speaker, role = self._desk.speaker, _role(self._desk.speaker, now_ns)
        device = speaker.device
        return SpeakerRole(
            alive=role.alive,
            age_s=role.age_s,
            rss_bytes=role.rss_bytes,
            device=None if device is None else device.name,
            latency_ms=None if device is None else device.latency_ms,
            why_not=speaker.why_not if device is None else None,
        )

    def _voice(self, pool: Pool, now_ns: int) -> VoiceSnapshot:
        living, capacity = pool.living(now_ns), pool.capacity(now_ns)
        return VoiceSnapshot(
            ready=bool(living),
            default=pool.voice == self._config.default_voice,
            open=sum(len(engine.streams) for engine in pool.engines),
            max_streams=None if capacity is None else capacity.streams,
            capacity=capacity,
            work=combined([engine.load for engine in living if engine.load]),
            engines={engine.name: self._engine(engine, now_ns) for engine in pool.engines},
        )

    def _engine(self, engine: Engine, now_ns: int) -> EngineSnapshot:
        there = engine.there(now_ns)  # else what it last said about its work is past
        return EngineSnapshot(
            ready=there,
            device=engine.device or None,
            open=len(engine.streams),
            max_streams=engine.max_streams,
            capacity=engine.capacity,
            work=combined([engine.load] if there and engine.load else []),
        )

    def _stream(self, name: str) -> StreamSnapshot:
        session, meter = self._desk.streams.sessions[name], self._desk.streams.sessions[name].meter
        generation = session.generation
        return StreamSnapshot(
            client=self._desk.streams.owners[name].name,
            engine=next(engine.name for engine in self._desk.pools[session.voice].engines if name in engine.streams),
            state=session.state,
            voice=session.voice,
            sinks=list(session.asked.sinks),
            generation=generation.number,
            frames_in=generation.frames_in,
            queue_frames=generation.frames_in - generation.samples_made // session.terms.hop,
            credit_frames=generation.granted_frames - generation.frames_in,
            made_samples=generation.samples_made,
            delivered_samples=session.delivered_samples,
            ttfa_ms=meter.ttfa_ms,
            rtf=meter.rtf,
            batch=meter.batch,
            stages=meter.stages,
            underruns=meter.underruns,
        )


def _role(handle: Engine | Speaker, now_ns: int) -> Role:
    return Role(
        alive=handle.there(now_ns),
        age_s=None if handle.heard_ns is None else (now_ns - handle.heard_ns) / 1e9,
        rss_bytes=None if handle.load is None else handle.load.rss_bytes,
    )
