"""The engines of one gateway of a simulation: they start, fail, drain and end, as the daemon's policy decides.

Rules: no event queue; what happens later is asked for through `later`. daemon/cluster/policy.py decides, Cell places.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glowd.daemon.cluster.demand import Rule
from glowd.daemon.cluster.policy import DRAINING, NOTHING_SEEN, EngineLoad, Limits, Observation, decide
from glowd.daemon.gateway.handles.engine import SILENT_NS
from glowd.daemon.runtime.status import LOADING, READY
from glowd.daemon.wire.telemetry import Capacity
from tests.bench.simulation.cell import Cell
from tests.bench.simulation.load import Day

Later = Callable[[float, Callable[[float], None]], None]
"""Called with (time in s, what to do then); what is done gets the time."""


def as_ns(time_s: float) -> int:
    """The daemon's clock at a time of the simulation: it was switched on some time before."""
    return 1_000_000_000_000 + round(time_s * 1e9)


@dataclass(slots=True)
class Engine:
    """An engine from its start to its end."""

    name: str
    started_s: float
    state: str = LOADING
    instance: int = 0
    up: bool = False


@dataclass(slots=True)
class Counts:
    """What has happened to the engines and their streams."""

    starts: int = 0
    crashes: int = 0
    drained: int = 0
    moves_by_drain: int = 0
    moves_by_crash: int = 0
    interrupted: int = 0
    """Utterances that ran in an engine which was lost."""
    engine_s: float = 0.0


class Fleet:
    """The engines of a cell, oldest first. Owner: the simulation."""

    def __init__(
        self, cell: Cell, rule: Rule, limits: Limits, capacity: Capacity, start_s: float, crash_h: float, day: Day,
        rng: np.random.Generator, later: Later,
    ) -> None:  # fmt: skip
        self.cell, self.rule, self.limits, self.capacity, self.start_s = cell, rule, limits, capacity, start_s
        self.crash_s, self.day, self._rng, self._later = 3600.0 * crash_h, day, rng, later
        self.engines: dict[str, Engine] = {}
        self.counts, self.memory, self.refused, self._named = Counts(), NOTHING_SEEN, 0, 0

    # ------------------------------------------------------------------ the policy

    def look(self, now_s: float) -> None:
        """Move the streams of engines that drain, whose utterances have ended since the last look; then ask the policy."""
        if any(engine.state == DRAINING for engine in self.engines.values()):
            self.counts.moves_by_drain += self._moved(now_s)
        counts = self.cell.streams.counts()
        loads = [
            EngineLoad(name=one.name, state=one.state, streams=counts[one.name], capacity=self._known(one))
            for one in self.engines.values()
        ]
        now = Observation(now_s=now_s, engines=loads, refused=self.refused, start_s=self.start_s)
        decision, self.memory = decide(self.rule, self.limits, now, self.memory)
        self.refused = 0
        for _ in range(decision.start):
            self.start(now_s)
        for name in decision.take_back:
            self._take_back(self.engines[name])
        for name in decision.drain:
            self._drain(self.engines[name])
        for name in decision.stop:
            self._stop(self.engines[name], now_s)

    def _known(self, engine: Engine) -> int:
        return self.capacity.streams if engine.instance else 0

    def start(self, now_s: float) -> Engine:
        """Start an engine, which is ready later."""
        self._named += 1
        engine = Engine(f"{self._named}", now_s)
        self.engines[engine.name] = engine
        self.counts.starts += 1
        self._later(now_s + self.start_s, lambda at_s: self.ready(engine, at_s))
        return engine

    def ready(self, engine: Engine, now_s: float) -> None:
        """The engine has started, or was restarted."""
        if engine.name not in self.engines:
            return
        engine.instance, engine.up = engine.instance + 1, True
        self.cell.ready(engine.name, self.capacity, engine.instance, as_ns(now_s))
        if engine.state == DRAINING:
            self.cell.drain(engine.name)
        else:
            engine.state = READY
        if self.crash_s:
            instance, at_s = engine.instance, now_s + self._rng.exponential(self.crash_s)
            self._later(at_s, lambda at_s: self._crash(engine, instance, at_s))

    def _take_back(self, engine: Engine) -> None:
        engine.state = READY if engine.up else LOADING
        if engine.instance:
            self.cell.take_back(engine.name)

    def _drain(self, engine: Engine) -> None:
        engine.state = DRAINING
        self.counts.drained += 1
        if engine.instance:
            self.cell.drain(engine.name)

    def _stop(self, engine: Engine, now_s: float) -> None:
        if engine.instance:
            self.cell.remove(engine.name)
        del self.engines[engine.name]
        self.counts.engine_s += now_s - engine.started_s

    # -------------------------------------------------------------------- streams

    def alive(self, now_s: float) -> None:
        """Every engine that runs is heard now."""
        self.cell.seen([one.name for one in self.engines.values() if one.up], as_ns(now_s))

    def _moved(self, now_s: float) -> int:
        """Let the pool move what has to move; how many streams that were."""
        before = {stream.name: stream.engine for stream in self.cell.streams}
        self.cell.pool.tick(as_ns(now_s))
        return sum(before[stream.name] is not stream.engine for stream in self.cell.streams)

    def _crash(self, engine: Engine, instance: int, now_s: float) -> None:
        """The engine is lost; it is restarted, and its streams move when its silence is noticed."""
        if engine.name not in self.engines or engine.instance != instance or not engine.up:
            return
        engine.up = False
        engine.state = DRAINING if engine.state == DRAINING else LOADING
        self.counts.crashes += 1
        here = len(self.cell.streams.placed_in(self.cell.handles[engine.name]))
        self.counts.interrupted += int(self._rng.binomial(here, self.day.speaking))
        self._later(now_s + SILENT_NS / 1e9, lambda at_s: self._notice(engine, at_s))
        self._later(now_s + self.start_s, lambda at_s: self.ready(engine, at_s))

    def _notice(self, engine: Engine, now_s: float) -> None:
        if not engine.up and engine.name in self.engines:
            self.alive(now_s)
            self.counts.moves_by_crash += self._moved(now_s)

    # -------------------------------------------------------------------- figures

    def ready_capacity(self) -> int:
        """The streams that the engines which take streams can serve."""
        return self.capacity.streams * sum(one.state == READY for one in self.engines.values())

    def close(self, now_s: float) -> None:
        """The day is over: count the time of the engines that still run."""
        self.counts.engine_s += sum(now_s - one.started_s for one in self.engines.values())

    def check(self) -> None:
        """Raises AssertionError where a promise of the daemon is broken."""
        counts = self.cell.streams.counts()
        for name, streams in counts.items():
            assert name in self.engines, f"{streams} streams are in engine {name}, which has ended"
            assert streams <= self.capacity.streams, f"engine {name} has {streams} of {self.capacity.streams} streams"
        for handle in self.cell.pool.engines:
            drains = self.engines[handle.name].state == DRAINING
            assert drains == handle.is_leaving, f"engine {handle.name} drains: {drains}, and is_leaving differs"
