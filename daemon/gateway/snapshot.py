"""A snapshot of the daemon: what `glowctl top` and `glowctl status` show.

Rules: no socket; reads what others own and changes nothing. What was not measured is None, never a good-looking zero.

A snapshot is a map:

| key | meaning |
|---|---|
| `t_ns` | daemon's monotonic clock |
| `state` | `ready`, `degraded` (a role is missing, or a voice falls behind), `stopping` |
| `uptime_s` | since the gateway started |
| `clients`, `max_streams` | connected clients; streams admitted at most |
| `roles` | name -> {`alive`, `rss_bytes`, `age_s` since last heard of}; of the gateway `turn_ms`, the longest turn of its loop |
| `voices` | name -> as below |
| `streams` | name -> as below |

A voice:

| key | meaning |
|---|---|
| `ready`, `default` | whether an engine of it is there; whether it is the voice of streams that name none |
| `open`, `max_streams` | streams open, speaking or not, and admitted at most; None: no limit but the daemon's |
| `capacity` | where `max_streams` comes from: see daemon/engine/capacity.py; None as above |
| `engines` | name -> `device`, and all of this of one engine (but `default`, `engines`); above, they are `combined` |
| `streams`, `busy`, `batches_per_s`, `audio_per_s` | utterances in the engine's hands, share of time in the network, ... |
| `stolen` | share of the time in the network in which the processor ran something else; None where that is not known |
| `late` | share of the chunks of the last second that were late: daemon/engine/scheduler.py; None if there were none |
| `level`, `degraded` | 0 is normal; above it also the map of Overload.describe (daemon/engine/overload.py), None at 0 |

A stream:

| key | meaning |
|---|---|
| `client`, `state`, `voice`, `engine`, `sinks`, `generation` | what it is and does, and where |
| `frames_in`, `queue_frames`, `credit_frames` | frames received, waiting for the network, and still granted |
| `made_samples`, `delivered_samples` | rendered, and out of every sink |
| `ttfa_ms` | first frames at the gateway -> first sample offered to the sinks, newest generation |
| `rtf` | network time over audio time; streams in one batch share its time |
| `batch` | mean number of streams in its calls to the network |
| `stages` | name -> {`p50_ms`, `p99_ms`, `mean_ms`, `count`}, see STAGES; their means add up to `total` |
| `underruns` | {`client`, `engine`, `missing_samples`}: who was late |
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from glowd.daemon.config import Config
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.router import Desk
from glowd.daemon.runtime.system import rss_bytes

SUMS, MEANS, WORST = ("streams", "batches_per_s", "audio_per_s"), ("busy", "stolen"), ("late", "level")
LOAD = (*SUMS, *MEANS, *WORST, "degraded")
"""What a voice's part of a snapshot has from its engines."""


def combined(loads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the engines of a voice do, as of one: sums, means of shares, and of lateness the worst."""

    def known(key: str) -> list[Any]:
        return [load[key] for load in loads if load.get(key) is not None]

    figures = {
        **{key: sum(known(key)) if known(key) else None for key in SUMS},
        **{key: sum(known(key)) / len(known(key)) if known(key) else None for key in MEANS},
        **{key: max(known(key), default=None) for key in WORST},
    }
    return figures | {"degraded": max(known("degraded"), key=lambda degraded: degraded["level"], default=None)}


class Snapshots:
    """Takes snapshots. Owner: the gateway's only thread."""

    def __init__(self, config: Config, desk: Desk, engines: Mapping[str, Engine], stopping: threading.Event) -> None:
        self.turn_ms: float | None = None
        """The longest turn of the gateway's loop, lately."""
        self._config, self._desk, self._engines, self._stopping = config, desk, engines, stopping
        self._started_ns = time.monotonic_ns()

    def take(self) -> tuple[str, dict[str, Any]]:
        """The daemon's state, and the map that is published."""
        now_ns = time.monotonic_ns()
        fine = all(engine.there(now_ns) and not engine.load.get("degraded") for engine in self._engines.values())
        state = "ready" if fine else "degraded"
        state = "stopping" if self._stopping.is_set() else state
        return state, {
            "t_ns": now_ns,
            "state": state,
            "uptime_s": (now_ns - self._started_ns) / 1e9,
            "clients": len(self._desk.peers),
            "max_streams": self._config.server.max_streams,
            "roles": self._roles(now_ns),
            "voices": {name: self._voice(pool, now_ns) for name, pool in self._desk.pools.items()},
            "streams": {name: self._stream(name) for name in self._desk.streams.sessions},
        }

    def _roles(self, now_ns: int) -> dict[str, Any]:
        def role(backend: Engine | Speaker) -> dict[str, Any]:
            age_s = None if backend.heard_ns is None else (now_ns - backend.heard_ns) / 1e9
            rss = backend.load.get("rss_bytes")
            return {"alive": backend.there(now_ns), "age_s": age_s, "rss_bytes": rss}

        speaker = role(self._desk.speaker)
        device = self._desk.speaker.device
        speaker["device"] = None if device is None else device.name
        speaker["latency_ms"] = None if device is None else device.latency_ms
        speaker["why_not"] = self._desk.speaker.why_not if device is None else None
        return {
            "gateway": {"alive": True, "age_s": 0.0, "rss_bytes": rss_bytes(), "turn_ms": self.turn_ms},
            **{f"engine:{name}": role(engine) for name, engine in self._engines.items()},
            "speaker": speaker,
        }

    def _voice(self, pool: Pool, now_ns: int) -> dict[str, Any]:
        living, capacity = pool.living(now_ns), pool.capacity(now_ns)
        return {
            "ready": bool(living),
            "default": pool.voice == self._config.default_voice,
            "open": sum(len(engine.streams) for engine in pool.engines),
            "max_streams": capacity and capacity["streams"],
            "capacity": capacity,
            **combined([engine.load for engine in living]),
            "engines": {engine.name: self._engine(engine, now_ns) for engine in pool.engines},
        }

    def _engine(self, engine: Engine, now_ns: int) -> dict[str, Any]:
        there = engine.there(now_ns)  # else what it last said about its work is past
        return {
            "ready": there,
            "device": engine.device or None,
            "open": len(engine.streams),
            "max_streams": engine.max_streams,
            "capacity": engine.info.get("capacity"),
            **combined([engine.load] if there else []),
        }

    def _stream(self, name: str) -> dict[str, Any]:
        session = self._desk.streams.sessions[name]
        engine = next(engine.name for engine in self._desk.pools[session.voice].engines if name in engine.streams)
        about = {"client": self._desk.streams.owners[name].name, "engine": engine}
        return {**about, **dict(session.describe()), **session.meter.snapshot()}
