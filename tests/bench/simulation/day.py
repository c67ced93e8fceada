"""A day of streams: they are opened, refused, moved and closed, while engines come and go.

Rules: one queue of events, one seeded source of chance: equal settings give equal results. The events are whole streams; what
happens chunk by chunk in a part of the day is in window.py.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from glowd.daemon.cluster.demand import Rule
from glowd.daemon.cluster.policy import Limits
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.placement.registry import Stream
from tests.bench.simulation.cell import Cell
from tests.bench.simulation.curve import CostCurve
from tests.bench.simulation.fleet import Counts, Fleet, as_ns
from tests.bench.simulation.inputs import EngineFigures
from tests.bench.simulation.load import Day

Action = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated. `engines`: the most there may be, in all cells together."""

    figures: EngineFigures
    rule: Rule
    day: Day = field(default_factory=Day)
    engines: int = 100
    at_first: int = 0
    """Engines that are ready when the day begins; 0: as many as the load of that time needs."""
    cells: int = 1
    hold_s: float = 300.0
    look_s: float = 10.0
    start_s: float = 0.0
    """Until an engine is ready; 0: as measured."""
    crash_h: float = 48.0
    """Mean hours from one failure of an engine to the next, an assumption; 0: none fails."""
    seed: int = 1


@dataclass(slots=True)
class Timeline:
    """The cluster at each look: time in s, open streams, streams that could be open, engines that run, refusals so far."""

    rows: list[tuple[float, int, int, int, int]] = field(default_factory=list)

    def column(self, index: int) -> np.ndarray:
        """One of them over the day."""
        return np.array([row[index] for row in self.rows])


@dataclass(slots=True)
class Outcome:
    """What a day came to."""

    offered: int = 0
    refused: int = 0
    closed: int = 0
    stream_s: float = 0.0
    counts: Counts = field(default_factory=Counts)
    timeline: Timeline = field(default_factory=Timeline)
    loads: dict[float, list[int]] = field(default_factory=dict)
    """Streams of each engine that has some, at the times that were asked for."""

    @property
    def cost(self) -> float:
        """Engine-hours for each stream-hour."""
        return self.counts.engine_s / self.stream_s if self.stream_s else 0.0


class Simulation:
    """A day in which everything happens at its time."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.outcome = setup, Outcome()
        self._queue: list[tuple[float, int, Action]] = []
        self._numbers, self._rng = itertools.count(), np.random.default_rng(setup.seed)
        curve = CostCurve(setup.figures)
        limits = Limits(ceiling=setup.engines // setup.cells, hold_s=setup.hold_s, capacity=curve.capacity().streams)
        start_s = setup.start_s or setup.figures.start_s
        self.fleets = [
            Fleet(Cell(), setup.rule, limits, curve.capacity(), start_s, setup.crash_h, setup.day, rng,
                  self.later)
            for rng in self._rng.spawn(setup.cells)
        ]  # fmt: skip
        self._end_s = setup.day.seconds

    def later(self, at_s: float, action: Action) -> None:
        """Do something at a time."""
        heapq.heappush(self._queue, (at_s, next(self._numbers), action))

    def run(self, loads_at_s: tuple[float, ...] = ()) -> Outcome:
        """The whole day; the streams that are open at its end are closed."""
        self._begin()
        opened, lengths = self.setup.day.draw(self._rng)
        for number, (at_s, length_s) in enumerate(zip(opened.tolist(), lengths.tolist())):
            self.later(at_s, self._opening(f"s{number}", length_s))
        self.later(self.setup.look_s, self._look)
        for at_s in loads_at_s:
            self.later(at_s, self._note_loads)
        while self._queue and self._queue[0][0] <= self._end_s:
            at_s, _, action = heapq.heappop(self._queue)
            action(at_s)
        self._finish()
        return self.outcome

    def _begin(self) -> None:
        """Engines that are ready, and the streams that were open before: a day does not begin with nothing."""
        day, each = self.setup.day, self.fleets[0].capacity.streams
        before = float(day.rate(np.zeros(1))[0]) * day.stream_s
        first = self.setup.at_first or max(len(self.fleets), round(1.4 * before / each))
        for number in range(min(first, self.setup.engines)):
            fleet = self.fleets[number % len(self.fleets)]
            fleet.ready(fleet.start(0.0), 0.0)
        for number in range(round(before)):
            length_s = float(day.lengths(self._rng, 1)[0])
            self._opening(f"b{number}", length_s)(0.0)

    def _look(self, now_s: float) -> None:
        for fleet in self.fleets:
            fleet.alive(now_s)
            fleet.look(now_s)
            fleet.check()
        done = self.outcome
        done.timeline.rows.append(
            (
                now_s,
                sum(len(fleet.cell.streams) for fleet in self.fleets),
                sum(fleet.ready_capacity() for fleet in self.fleets),
                sum(len(fleet.engines) for fleet in self.fleets),
                done.refused,
            )
        )
        self.later(now_s + self.setup.look_s, self._look)

    def _note_loads(self, now_s: float) -> None:
        self.outcome.loads[now_s] = [
            count for fleet in self.fleets for count in fleet.cell.streams.counts().values() if count
        ]

    # -------------------------------------------------------------------- streams

    def _opening(self, name: str, length_s: float) -> Action:
        def act(now_s: float) -> None:
            self.outcome.offered += 1
            fleet = min(self.fleets, key=_share)
            fleet.alive(now_s)
            client = ClientConnection(name.encode(), name, as_ns(now_s), lambda identity, parts: True)
            if (stream := fleet.cell.open(name, client, as_ns(now_s))) is None:
                self.outcome.refused += 1
                fleet.refused += 1
                return
            until_s = min(now_s + length_s, self._end_s)
            self.outcome.stream_s += until_s - now_s
            self.later(until_s, self._closing(fleet, stream))

        return act

    def _closing(self, fleet: Fleet, stream: Stream) -> Action:
        def act(now_s: float) -> None:
            assert fleet.cell.streams.find(stream.name) is stream, f"stream {stream.name} is lost"
            fleet.cell.streams.close(stream)
            self.outcome.closed += 1

        return act

    def _finish(self) -> None:
        """Close the books."""
        total = self.outcome.counts
        for fleet in self.fleets:
            fleet.close(self._end_s)
            for name in Counts.__dataclass_fields__:
                setattr(total, name, getattr(total, name) + getattr(fleet.counts, name))
        assert self.outcome.offered == self.outcome.refused + self.outcome.closed, "a stream is lost"


def _share(fleet: Fleet) -> float:
    """How full a cell is: a client is sent to the emptiest one."""
    capacity = fleet.ready_capacity()
    return len(fleet.cell.streams) / capacity if capacity else float("inf")
