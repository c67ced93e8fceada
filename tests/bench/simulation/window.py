"""Some seconds of a cluster, chunk by chunk: underruns and delays, with the daemon's own code from the gateway to the scheduler.

Rules: one queue of events and one seeded source of chance. Frames go through the sessions of the gateway to renderers with the
true scheduler, and audio goes back, on links with jitter. The gateway takes its time for each message, one after another.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity
from tests.bench.simulation.cell import Cell
from tests.bench.simulation.curve import CostCurve
from tests.bench.simulation.engine import SimulatedEngine, ready
from tests.bench.simulation.fleet import as_ns
from tests.bench.simulation.inputs import CLIENTS, CPU, MACHINES, EngineFigures, LinkFigures
from tests.bench.simulation.link import Link
from tests.bench.simulation.talker import CHUNK_S, Talker, Tally

TICK_S, BEAT_S = 0.02, 1.0
"""How often the gateway looks after its streams, and how often an engine says that it is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSetup:
    """What is simulated. `streams`: how many each engine has when it begins; more than its capacity: no admission."""

    figures: EngineFigures = CPU
    streams: Sequence[int] = (10, 10, 10)
    seconds: float = 30.0
    clients: LinkFigures = CLIENTS
    machines: LinkFigures = MACHINES
    gateway_us: float = 100.0
    """Processor time of the gateway for a message that comes in."""
    prefill_s: float = 0.1
    utterance_s: float = 6.0
    pause_s: float = 6.0
    crash_at_s: float = 0.0
    """When the first engine is lost; 0: never."""
    is_silent: bool = False
    """Whether the lost engine just falls silent, as when its machine is gone, and its connection does not end."""
    seed: int = 1


@dataclass(slots=True)
class WindowOutcome:
    """What the listeners heard."""

    tally: Tally
    gateway_busy: float = 0.0
    """The share of a core that the gateway used."""
    engine_busy: list[float] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    """Overload levels at the end."""
    moved: int = 0
    most_committed: float = 0.0

    @property
    def underruns_per_minute(self) -> float:
        """For each stream and minute of speech."""
        return 60 * sum(self.tally.underruns.values()) / self.tally.speech_s if self.tally.speech_s else 0.0


def capacity_for(curve: CostCurve, streams: Sequence[int]) -> Capacity:
    """The capacity that an engine measures, or a configured one that lets so many streams in."""
    measured, most = curve.capacity(), max(streams)
    return measured if measured.streams >= most else Capacity(streams=most, measured=False)


class Window:
    """A gateway, its engines and their clients for some seconds."""

    def __init__(self, setup: WindowSetup) -> None:
        self.setup, self.now_s = setup, 0.0
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers, self._rng = itertools.count(), np.random.default_rng(setup.seed)
        self.curve, self.tally = CostCurve(setup.figures), Tally()
        self.cell = Cell(self._to_engine)
        self._capacity = capacity_for(self.curve, setup.streams)
        self._free_s = self._busy_s = 0.0
        self._to: dict[str, Link] = {}
        self._from: dict[str, Link] = {}
        self.engines: dict[str, SimulatedEngine] = {}
        self._is_reachable: dict[str, bool] = {}
        for number in range(len(setup.streams)):
            self._start(f"{number}")
        self.talkers: list[Talker] = []
        self._homes: dict[str, str] = {}
        for number, streams in enumerate(setup.streams):
            for _ in range(streams):
                self._talk(f"{number}")

    def later(self, at_s: float, action: Callable[[float], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._queue, (at_s, next(self._numbers), action))

    # ----------------------------------------------------------------------- set up

    def _start(self, name: str) -> None:
        self._to[name], self._from[name] = (Link(self.setup.machines, self._rng) for _ in range(2))
        self._is_reachable[name] = True
        (rng,) = self._rng.spawn(1)
        engine = SimulatedEngine(
            name, self.curve, rng, self.later, lambda message, at_s: self._leave(name, message, at_s)
        )
        self.engines[name] = engine
        self.cell.ready(name, self._capacity, 1, as_ns(0.0))
        self.later(BEAT_S, lambda at_s: self._beat(engine, at_s))

    def _talk(self, engine: str) -> None:
        """A client whose stream is in an engine, and begins to speak within a pause and an utterance."""
        setup, (rng,) = self.setup, self._rng.spawn(1)
        talker = Talker(
            f"s{len(self.talkers)}", rng, setup.clients, self.later, self.tally, self._of_client, lambda: self.now_s,
            setup.prefill_s, setup.utterance_s, setup.pause_s,
        )  # fmt: skip
        self.talkers.append(talker)
        self._homes[talker.name] = engine
        stream = self.cell.open(talker.name, talker, as_ns(0.0), "socket")
        assert stream is not None, "the window begins with more streams than there is capacity"
        if stream.engine.name != engine:
            self.cell.streams.move(stream, self.cell.handles[engine])
        talker.stream = stream
        self.later(rng.uniform(0.0, max(CHUNK_S, setup.pause_s)), talker.begin)

    # --------------------------------------------------------------------- the run

    def run(self) -> WindowOutcome:
        """All of it."""
        self.later(TICK_S, self._tick)
        if self.setup.crash_at_s:
            self.later(self.setup.crash_at_s, lambda at_s: self._crash(next(iter(self.engines)), at_s))
        while self._queue and self._queue[0][0] <= self.setup.seconds:
            self.now_s, _, action = heapq.heappop(self._queue)
            action(self.now_s)
        return self._outcome()

    def _outcome(self) -> WindowOutcome:
        seconds, up = self.setup.seconds, [engine for engine in self.engines.values() if engine.up]
        moved = sum(stream.engine.name != self._homes[stream.name] for stream in self.cell.streams)
        counts = self.cell.streams.counts()
        return WindowOutcome(
            self.tally,
            self._busy_s / seconds,
            [engine.busy_s / seconds for engine in up],
            [engine.renderer.overload.level for engine in up if engine.renderer.overload],
            moved,
            max(counts[engine.name] for engine in up) / self.curve.capacity().streams,
        )

    def _tick(self, now_s: float) -> None:
        self.cell.pool.tick(as_ns(now_s))
        self.later(now_s + TICK_S, self._tick)

    def _beat(self, engine: SimulatedEngine, now_s: float) -> None:
        if engine.up:
            self._leave(engine.name, ready(self._capacity), now_s)
            self.later(now_s + BEAT_S, lambda at_s: self._beat(engine, at_s))

    def _crash(self, name: str, now_s: float) -> None:
        self.engines[name].crash()
        self._is_reachable[name] = self.setup.is_silent

    # ------------------------------------------------------------------- the gateway

    def _serve(self, now_s: float, handle: Callable[[int], None]) -> None:
        """The gateway handles a message when those before it are done."""
        cost_s = self.setup.gateway_us / 1e6
        self._free_s = max(self._free_s, now_s) + cost_s
        self._busy_s += cost_s
        self.later(self._free_s, lambda at_s: handle(as_ns(at_s)))

    def _of_client(self, talker: Talker, message: Message, now_s: float) -> None:
        def handle(now_ns: int) -> None:
            assert talker.stream is not None
            session = talker.stream.session
            if isinstance(message, wire.Mel):
                session.client.mel(message, now_ns)
            elif isinstance(message, wire.End):
                session.client.end(message, now_ns)

        self._serve(now_s, handle)

    def _leave(self, name: str, message: Message, now_s: float) -> None:
        """An engine sends something."""
        self.later(self._from[name].arrival_s(now_s), lambda at_s: self._of_engine(name, message, at_s))

    def _of_engine(self, name: str, message: Message, now_s: float) -> None:
        handle = self.cell.handles[name]

        def act(now_ns: int) -> None:
            handle.seen(now_ns)
            stream = self.cell.streams.find_key(getattr(message, "key", -1))
            if isinstance(message, ipc.Load):
                handle.handle(message, [], now_ns)
            if stream is None or stream.engine is not handle:
                return
            if isinstance(message, ipc.Pcm):
                stream.session.engine.pcm(message, now_ns)
            elif isinstance(message, ipc.Failed):
                stream.session.engine.failed(Code.INTERNAL, message.text)

        self._serve(now_s, act)

    def _to_engine(self, name: str, message: Message) -> bool:
        """What the gateway sends to an engine; whether the connection is there."""
        if not self._is_reachable.get(name):
            return False
        self.later(self._to[name].arrival_s(self.now_s), lambda at_s: self.engines[name].arrive(message, at_s))
        return True
