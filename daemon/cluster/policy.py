"""Whether engines of a voice should be started, and which should be drained or ended.

Rules: pure functions. No clock, no process and no socket: who runs engines describes them every few seconds, does what the
answer says, and keeps the memory that it gets for the next time. How many engines are needed is decided by a rule of demand.py.

    memory = NOTHING_SEEN
    each few seconds:  decision, memory = decide(Committed(0.7), limits, observation, memory)

An engine is `loading`, `ready`, or `draining`: then it keeps the streams that it has, gets no others, and is ended when it has
none. So no stream is lost by fewer engines. More engines are started at once; fewer are wanted only when they have been enough
for `hold_s`, so that a short pause costs no start. An engine is drained only if the others have room for its streams. One that
drains already is taken back before another one is started, because it is warm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from glowd.daemon.cluster.demand import Rule, Seen
from glowd.daemon.runtime.status import LOADING, READY

DRAINING = "draining"
STATES = (LOADING, READY, DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """An engine and what is open in it. One that is lost and will be restarted is `loading`; any other is left out."""

    name: str
    state: str
    streams: int = 0
    capacity: int = 0
    """How many streams it serves; 0: not known yet."""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"engine {self.name}: state must be one of {', '.join(STATES)}; got {self.state!r}")

    @property
    def committed(self) -> float:
        """The share of its capacity that is taken."""
        return self.streams / self.capacity if self.capacity else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The engines of one voice at one moment, oldest first. `refused`: streams since the last one, for want of capacity.

    `elsewhere`: streams in engines that are not among these, because they get no others: those streams will need room here.
    """

    now_s: float
    engines: Sequence[EngineLoad]
    refused: int = 0
    elsewhere: int = 0
    start_s: float = 0.0
    """How long an engine takes until it is ready, as measured last."""

    @property
    def open(self) -> int:
        """All streams of the voice that these engines serve, or will."""
        return sum(engine.streams for engine in self.engines) + self.elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many engines there may be, and for how long fewer must be enough before one is drained."""

    floor: int = 1
    ceiling: int
    hold_s: float = 300.0
    capacity: int = 1
    """Streams of an engine, until one has measured it."""

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.ceiling or self.hold_s < 0 or self.capacity < 1:
            raise ValueError(
                f"0 <= floor <= ceiling, 0 <= hold_s and 1 <= capacity are needed; got floor {self.floor}, "
                f"ceiling {self.ceiling}, hold_s {self.hold_s:g}, capacity {self.capacity}"
            )


@dataclass(frozen=True, slots=True)
class Memory:
    """The looks that still matter, oldest first, and when the first of all was. Owner: the caller of `decide`."""

    seen: tuple[Seen, ...] = ()
    began_s: float = math.inf


NOTHING_SEEN = Memory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now. `wanted`: the engines that should be ready or loading when it is done."""

    wanted: int
    start: int = 0
    take_back: tuple[str, ...] = ()
    """Draining engines that get streams again."""
    drain: tuple[str, ...] = ()
    """Engines that get no more streams; those that they have should move to others between utterances."""
    stop: tuple[str, ...] = ()
    """Draining engines without a stream: they can be ended."""


def decide(rule: Rule, limits: Limits, now: Observation, memory: Memory) -> tuple[Decision, Memory]:
    """What to do about the engines of a voice, and what to pass in the next time."""
    look = Seen(now.now_s, now.open, now.refused)
    recent = [*_since(memory.seen, now.now_s - max(rule.window_s, limits.hold_s)), look]
    needed = engines_needed(rule, limits, now, _since(recent, now.now_s - rule.window_s))
    kept = Memory((*recent[:-1], look._replace(needed=needed)), min(memory.began_s, now.now_s))
    return _change(now, needed, _held(kept, limits, now), limits), kept


def _since(seen: Sequence[Seen], begin_s: float) -> Sequence[Seen]:
    return [look for look in seen if look.time_s >= begin_s]


def _held(memory: Memory, limits: Limits, now: Observation) -> int:
    """The most engines that were needed in the last `hold_s`; all, if nobody looked for so long yet."""
    if now.now_s - memory.began_s < limits.hold_s:
        return len(now.engines)
    return max(look.needed for look in _since(memory.seen, now.now_s - limits.hold_s))


def engines_needed(rule: Rule, limits: Limits, now: Observation, seen: Sequence[Seen]) -> int:
    """The engines that serve as many streams as the rule says, between floor and ceiling."""
    each = streams_each(now.engines, limits)
    active = sum(engine.state != DRAINING for engine in now.engines)
    streams = rule.streams(seen, round(active * each), now.start_s)
    return min(max(math.ceil(streams / each - 1e-9), limits.floor), limits.ceiling)


def streams_each(engines: Sequence[EngineLoad], limits: Limits) -> float:
    """The mean capacity of the engines that have measured theirs."""
    known = [engine.capacity for engine in engines if engine.capacity]
    return sum(known) / len(known) if known else float(limits.capacity)


def _change(now: Observation, needed: int, held: int, limits: Limits) -> Decision:
    """From the engines that there are to as many as are `needed` now; to fewer, if no more were needed lately (`held`)."""
    engines = now.engines
    draining = [engine for engine in engines if engine.state == DRAINING]
    active = len(engines) - len(draining)
    if active < needed:
        back = sorted(draining, key=lambda engine: -engine.streams)[: needed - active]
        free = limits.ceiling - len(engines)  # an engine that drains still takes its machine
        start = max(0, min(needed - active - len(back), free))
        decision = Decision(wanted=needed, start=start, take_back=tuple(engine.name for engine in back))
    else:
        leaving = engines_to_drain(engines, active - max(needed, held), now.elsewhere)
        decision = Decision(wanted=active - len(leaving), drain=leaving)
    stop = tuple(engine.name for engine in draining if not engine.streams and engine.name not in decision.take_back)
    return replace(decision, stop=stop)


def engines_to_drain(engines: Sequence[EngineLoad], most: int, elsewhere: int = 0) -> tuple[str, ...]:
    """Up to `most` engines whose streams the others that are ready have room for: those with the fewest, newest first.

    `elsewhere`: as in Observation.
    """
    ready = sum(engine.capacity for engine in engines if engine.state == READY)
    room, leaving = ready - sum(engine.streams for engine in engines) - elsewhere, list[str]()
    newest = [engine for engine in engines[::-1] if engine.state != DRAINING]
    for engine in sorted(newest, key=lambda engine: (engine.streams, engine.state == READY))[: max(0, most)]:
        room -= engine.capacity if engine.state == READY else 0
        if room < 0:
            break
        leaving.append(engine.name)
    return tuple(leaving)
