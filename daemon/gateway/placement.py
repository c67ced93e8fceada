"""Which engine a new stream gets: the one of its voice with the most room, or none, and then why.

Rules: no socket, no clock. A stream stays where it was placed, because its state is there, until its engine is gone: then it
moves to another one of the voice that has room, or waits for its own to come back.

An engine's load is the share of its capacity that open streams take. Each engine measured its capacity as if it were alone;
engines that share something must not be asked for more of it than there is:

    engines on one CUDA device    sum of load            <= 1
    engines on the CPU            sum of load x threads  <= cores that this process may use

A capacity that was configured is the operator's word: it counts, and is not cut. A voice that is heard only when its
utterance has ended has no pace to keep: it neither counts nor is cut. An open stream counts, paused and idle ones too: it may
speak at any time, and could not be refused then.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from glowd.daemon.gateway.handles import Engine
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo


def load_of(engine: Engine) -> Fraction:
    """The share of its capacity that is taken; 0 for an engine that has no pace to keep."""
    if engine.max_streams is None or engine.whole_utterance:
        return Fraction(0)
    return Fraction(len(engine.streams), engine.max_streams)


Left = dict[str, Fraction]


class Refusal(NamedTuple):
    """Why an engine takes no stream now, in words that follow "is"; and what to do."""

    reason: str
    remedy: str


class Machine:
    """All engines of the daemon, and what they share."""

    def __init__(self, engines: Sequence[Engine], cores: int) -> None:
        self.engines, self.cores = engines, cores

    def weight(self, engine: Engine) -> int:
        """What it takes at full load of what it runs on: so many cores, or the whole of a CUDA device."""
        return min(engine.threads, self.cores) if engine.device == "cpu" else 1

    def left(self) -> Left:
        """What is left of the cores ("cpu") and of each CUDA device (of 1)."""
        left = {engine.device: Fraction(self.cores if engine.device == "cpu" else 1) for engine in self.engines}
        for engine in self.engines:
            left[engine.device] -= load_of(engine) * self.weight(engine)
        return left

    def refusal(self, engine: Engine, left: Left) -> Refusal | None:
        """Why one more stream would be too much for what it runs on."""
        capacity = engine.capacity
        if capacity is None or not capacity.measured:
            return None
        if left[engine.device] >= Fraction(self.weight(engine), capacity.streams):
            return None
        shared = f"the {self.cores} cores" if engine.device == "cpu" else engine.device
        others = [one for one in self.engines if one is not engine and one.device == engine.device and load_of(one)]
        return Refusal(
            f"at capacity: {_count(engine)} are open, and the rest of {shared} is taken by "
            + ", ".join(f"{one.name} ({_count(one)})" for one in others),
            f"close one of these, try again later, or set voices.{engine.voice}.max_streams to a number",
        )


class Pool:
    """The engines of one voice."""

    def __init__(self, voice: str, engines: Sequence[Engine], machine: Machine) -> None:
        self.voice, self.engines, self._machine = voice, engines, machine

    def living(self, now_ns: int) -> list[Engine]:
        """The engines that are there."""
        return [engine for engine in self.engines if engine.there(now_ns)]

    def capacity(self, now_ns: int) -> Capacity | None:
        """What the engines that are there can serve in all, with the times of the slowest; None without a limit."""
        found = [engine.capacity for engine in self.living(now_ns) if engine.capacity]
        if not found:
            return None
        slowest = max(found, key=lambda capacity: capacity.round_ms or 0)
        return dataclasses.replace(slowest, streams=sum(capacity.streams for capacity in found))

    def info(self, now_ns: int) -> VoiceInfo | None:
        """The voice as `welcome` has it; None while no engine is there."""
        living = self.living(now_ns)
        return dataclasses.replace(living[0].info, capacity=self.capacity(now_ns)) if living else None

    # ---------------------------------------------------------------- placement

    def require(self, now_ns: int) -> Engine:
        """The engine for one more stream. Raises WireError."""
        if not self.living(now_ns):
            raise WireError(Code.ENGINE_LOST, f"the engine of voice {self.voice!r} is not running now; try again")
        if (engine := self.best(now_ns)) is None:
            raise WireError(Code.AT_CAPACITY, self._at_capacity(now_ns))
        return engine

    def best(self, now_ns: int) -> Engine | None:
        """The engine with the most room; None if no engine that is there has any."""
        left = self._machine.left()
        able = [engine for engine in self.living(now_ns) if self._refusal(engine, left) is None]

        def room(engine: Engine) -> tuple[Fraction, Fraction, int]:
            """In engine and device, then in the engine; then (where there is no capacity) the fewest streams."""
            own = 1 - load_of(engine)
            return min(own, left[engine.device] / self._machine.weight(engine)), own, -len(engine.streams)

        return max(able, key=room, default=None)

    def forget(self, stream: str) -> None:
        """A stream is closed."""
        for engine in self.engines:
            engine.streams.pop(stream, None)

    def tick(self, now_ns: int) -> None:
        """Move streams away from engines that are gone; give up those that have waited too long."""
        for engine in self.engines:
            if engine.streams and not engine.there(now_ns):
                self._rescue(engine, now_ns)
            engine.tick(now_ns)

    def _rescue(self, lost: Engine, now_ns: int) -> None:
        for name, session in list(lost.streams.items()):
            del lost.streams[name]  # it takes no room there any more, which may be what it needs elsewhere
            engine = self.best(now_ns)
            (engine or lost).streams[name] = session
            if engine is None:  # and there is none for the next one either
                return
            session.move(engine.send)

    # ------------------------------------------------------------------- words

    def _at_capacity(self, now_ns: int) -> str:
        living, capacity, left = self.living(now_ns), self.capacity(now_ns), self._machine.left()
        refusals = {engine.name: refusal for engine in living if (refusal := self._refusal(engine, left))}
        remedies = "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals.values()))
        if len(self.engines) == 1:
            return f"voice {self.voice!r} is {refusals[living[0].name].reason}; {remedies}"
        reasons = [f"{name} is {refusal.reason}" for name, refusal in refusals.items()]
        reasons += [f"{engine.name} is not running now" for engine in self.engines if engine not in living]
        limit = f" of {capacity.streams}" if capacity else ""
        open_streams = sum(len(engine.streams) for engine in living)
        return (
            f"voice {self.voice!r} is at capacity: {open_streams}{limit} streams are open in its engines; {remedies} "
            f"({'; '.join(reasons)})"
        )

    def _refusal(self, engine: Engine, left: Left) -> Refusal | None:
        """Why an engine that is there takes no stream now; None if it does."""
        if engine.capacity and len(engine.streams) >= engine.capacity.streams:
            return _full(engine, engine.capacity)
        if reason := engine.overload:
            return Refusal(
                f"overloaded and takes no new streams now ({len(engine.streams)} are open): {reason}",
                "try again in some seconds",
            )
        return self._machine.refusal(engine, left)


def _count(engine: Engine) -> str:
    return f"{len(engine.streams)} of {engine.max_streams} streams"


def _full(engine: Engine, capacity: Capacity) -> Refusal:
    setting = f"voices.{engine.voice}.max_streams"
    if not capacity.measured:
        return Refusal(
            f"at capacity: {_count(engine)} are open, the most allowed ({setting})", "close one, or try again later"
        )
    took = "" if capacity.round_ms is None or capacity.chunk_ms is None else (
        f", with {capacity.round_ms:.1f} ms of work for {capacity.chunk_ms:.1f} ms of sound"
    )  # fmt: skip
    return Refusal(
        f"at capacity: {_count(engine)} are open, as many as this machine was measured to keep up with{took}",
        f"close one, try again later, or set {setting} to another number",
    )
