"""Which engine a new stream gets: the one of its voice with the most free capacity that is not far away; or none, and then why.

Rules: no socket, no clock. A stream stays where it was placed, because its state is there, until its engine is lost. Then
it moves to another engine of the voice that has capacity, or waits for its own to come back.

The load of an engine is the share of its capacity that open streams take. Each engine measured its capacity as if it were
alone; engines that share a device must not be given more than the device can do:

    engines on one CUDA device    sum of load            <= 1
    engines on the CPU            sum of load x threads  <= cores that this process may use

The way to an engine of another machine delays each chunk. A round trip of FAR_MS (handles/link.py) counts as much as a whole
capacity that is taken. So an engine 20 ms away gets streams once the near ones have a fifth more of theirs taken, and one
beyond FAR_MS once they are full.

A configured capacity is the operator's decision: it counts, and is not reduced. A voice that needs whole utterances has no
pace to keep: it neither counts nor is reduced. Every open stream counts, also a paused or idle one: it may speak at any
time, and cannot be refused then.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.runtime.status import AWAY, LOADING, READY
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.telemetry import Capacity, VoiceInfo

FAR_MS = 100


class Place(NamedTuple):
    """A device of a host: what engines share."""

    host: str
    device: str


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The open streams of each engine, by its name, and the free capacity of each device."""

    counts: Mapping[str, int]
    free: Mapping[Place, Fraction]
    """Of "cpu" the cores that are free, of a CUDA device a share of 1."""

    def count(self, engine: EngineHandle) -> int:
        """Its open streams."""
        return self.counts.get(engine.name, 0)

    def load(self, engine: EngineHandle) -> Fraction:
        """The share of its capacity that is taken."""
        return load_of(engine, self.count(engine))

    def as_text(self, engine: EngineHandle) -> str:
        """Its streams, for an error message."""
        return f"{self.count(engine)} of {engine.max_streams} streams"


class Refusal(NamedTuple):
    """Why an engine takes no stream now, in words that follow "is"; and what to do."""

    reason: str
    remedy: str


def load_of(engine: EngineHandle, open_streams: int) -> Fraction:
    """The share of an engine's capacity that streams take; 0 for an engine without a pace to keep."""
    if engine.max_streams is None or engine.whole_utterance:
        return Fraction(0)
    return Fraction(open_streams, engine.max_streams)


class Rank(NamedTuple):
    """How well an engine suits one more stream: the first that differs counts, and more is better."""

    room: Fraction
    """Of engine and device together, less the distance."""
    own_room: Fraction
    """Of the engine alone, less the distance."""
    is_here: bool
    fewer_streams: int


def rank(own: Fraction, device: Fraction, distance_ms: float | None, open_streams: int) -> Rank:
    """`own`, `device`: the free share of the engine, and that of its device, in loads of this engine.

    `distance_ms`: of an engine of another machine; None: it is here.
    """
    far = Fraction(round(distance_ms or 0), FAR_MS)
    return Rank(min(own, device) - far, own - far, distance_ms is None, -open_streams)


class Machine:
    """All engines of the daemon, and the devices that they share: those of this host, and those of others."""

    def __init__(self, engines: list[EngineHandle], cores: int, host: str = "") -> None:
        """`engines` may be changed by their owner. `host`: the machine of this process, which has `cores`."""
        self.engines, self.cores, self.host = engines, cores, host

    def weight(self, engine: EngineHandle) -> int:
        """What an engine takes of its device at full load: a number of cores, or all of a CUDA device."""
        return min(engine.threads, self._size(engine)) if engine.device == "cpu" else 1

    def _size(self, engine: EngineHandle) -> int:
        """What there is of the device of an engine: cores, or one CUDA device."""
        if engine.device != "cpu":
            return 1
        return self.cores if engine.origin is None or engine.origin.host == self.host else engine.origin.cores

    def place(self, engine: EngineHandle) -> Place:
        """The device that an engine shares with those of the same place."""
        return Place(self.host if engine.origin is None else engine.origin.host, engine.device)

    def free_capacity(self, counts: Mapping[str, int]) -> dict[Place, Fraction]:
        """The cores ("cpu") of each host and the share of each CUDA device (of 1) that open streams leave free."""
        free = {self.place(engine): Fraction(self._size(engine)) for engine in self.engines}
        for engine in self.engines:
            free[self.place(engine)] -= load_of(engine, counts.get(engine.name, 0)) * self.weight(engine)
        return free

    def occupancy(self, counts: Mapping[str, int]) -> Occupancy:
        """What streams take of engines and devices."""
        return Occupancy(counts, self.free_capacity(counts))

    def refusal(self, engine: EngineHandle, now: Occupancy) -> Refusal | None:
        """Why one more stream would be too much for the device of an engine."""
        capacity = engine.capacity
        if capacity is None or not capacity.measured:
            return None
        place = self.place(engine)
        if now.free[place] >= Fraction(self.weight(engine), capacity.streams):
            return None
        shared = f"the {self._size(engine)} cores" if engine.device == "cpu" else engine.device
        others = [one for one in self.engines if one is not engine and self.place(one) == place and now.load(one)]
        return Refusal(
            f"at capacity: {now.as_text(engine)} are open, and the rest of {shared} is taken by "
            + ", ".join(f"{one.name} ({now.as_text(one)})" for one in others),
            f"close one of these, try again later, or set voices.{engine.voice}.max_streams to a number",
        )


class Pool:
    """The engines of one voice."""

    def __init__(
        self,
        voice: str,
        engines: Sequence[EngineHandle],
        machine: Machine,
        streams: StreamRegistry,
        is_default: bool = False,
    ) -> None:
        self.voice, self.engines, self.is_default = voice, list(engines), is_default
        self._machine, self._streams = machine, streams

    def alive_engines(self, now_ns: int) -> list[EngineHandle]:
        """The engines that are alive."""
        return [engine for engine in self.engines if engine.is_alive(now_ns)]

    def capacity(self, now_ns: int) -> Capacity | None:
        """The capacity of the engines that are alive together, with the times of the slowest; None without a limit."""
        found = [engine.capacity for engine in self.alive_engines(now_ns) if engine.capacity]
        if not found:
            return None
        slowest = max(found, key=lambda capacity: capacity.round_ms or 0)
        return dataclasses.replace(slowest, streams=sum(capacity.streams for capacity in found))

    def described(self, now_ns: int) -> dict[str, Any] | None:
        """The map of the voice in `welcome`; None while no engine is alive."""
        digests = {engine.digest for engine in self.alive_engines(now_ns)}
        found = self.info(now_ns)
        return None if found is None else {**found.to_map(), "digest": digests.pop() if len(digests) == 1 else ""}

    def info(self, now_ns: int) -> VoiceInfo | None:
        """The voice as a record; None while no engine is alive."""
        alive = self.alive_engines(now_ns)
        if not alive:
            return None
        return dataclasses.replace(alive[0].info, capacity=self.capacity(now_ns), default=self.is_default)

    def state(self, now_ns: int) -> str:
        """READY if an engine is, else LOADING if an engine is, else AWAY."""
        states = {engine.state(now_ns) for engine in self.engines}
        return next((state for state in (READY, LOADING) if state in states), AWAY)

    def reason(self, now_ns: int) -> str:
        """Why no engine is ready; "" if one is, or if all are loading for the first time."""
        reasons = {engine.name: reason for engine in self.engines if (reason := engine.reason(now_ns))}
        if self.state(now_ns) == READY:
            return ""
        if not self.engines:
            return f"no engine has joined; on another machine: GLOWD_JOIN=ADDRESS glowd engine --voice {self.voice}"
        if len(self.engines) == 1:
            return "".join(reasons.values())
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())

    def add(self, engine: EngineHandle) -> None:
        """An engine has joined."""
        self.engines.append(engine)

    def remove(self, engine: EngineHandle) -> None:
        """An engine has left."""
        if engine in self.engines:
            self.engines.remove(engine)

    # ---------------------------------------------------------------- placement

    def require(self, now_ns: int) -> EngineHandle:
        """The engine for one more stream. Raises WireError."""
        if not self.alive_engines(now_ns):
            raise WireError(Code.ENGINE_LOST, self._not_ready(now_ns))
        now = self._machine.occupancy(self._streams.counts())
        if (engine := self._best(now, now_ns)) is None:
            raise WireError(Code.AT_CAPACITY, self._at_capacity(now, now_ns))
        return engine

    def _best(self, now: Occupancy, now_ns: int, like: EngineHandle | None = None) -> EngineHandle | None:
        """The engine with the most free capacity, less its distance; None if no engine that is alive has any.

        One that gives up all its streams is chosen only if no other has room; samples show that it has recovered. `like`: only
        one that makes the same samples, as far as the two have said.
        """
        able = [engine for engine in self.alive_engines(now_ns) if self._refusal(engine, now) is None]
        able = [engine for engine in able if like is None or engine.makes_the_same(like)]

        def suits(engine: EngineHandle) -> tuple[bool, Rank]:
            free = now.free[self._machine.place(engine)] / self._machine.weight(engine)
            # Without a pace to keep, streams are shared out by their number, wherever the engines are.
            distance_ms = 0.0 if engine.max_streams is None or engine.whole_utterance else engine.distance_ms
            return not engine.is_failing, rank(1 - now.load(engine), free, distance_ms, now.count(engine))

        return max(able, key=suits, default=None)

    def tick(self, now_ns: int) -> None:
        """Move streams away from engines that are lost; fail those that have waited too long."""
        for engine in self.engines:
            if not engine.is_alive(now_ns):
                self._move_streams(engine, self._streams.placed_in(engine), now_ns)
            elif engine.is_leaving or engine.is_failing:
                placed = self._streams.placed_in(engine)
                self._move_streams(engine, [one for one in placed if not one.session.state.phase.needs_engine], now_ns)
            engine.tick([stream.session for stream in self._streams.placed_in(engine)], now_ns)

    def _move_streams(self, source: EngineHandle, streams: Sequence[Stream], now_ns: int) -> None:
        for stream in streams:
            counts = self._streams.counts()
            counts[source.name] -= 1  # a stream that moves leaves its own share of the device free
            engine = self._best(self._machine.occupancy(counts), now_ns, source)
            if engine is None or engine is source:  # nor is there one for the streams after it
                return
            with self._streams.contained(stream, "moving to another engine"):
                self._streams.move(stream, engine)

    def relocate(self, stream: Stream, now_ns: int) -> None:
        """An utterance has ended: a stream of an engine that is to leave, or fails, goes on elsewhere, if there is room."""
        if stream.engine.is_leaving or stream.engine.is_failing:
            self._move_streams(stream.engine, [stream], now_ns)

    # --------------------------------------------------------------- error texts

    def _not_ready(self, now_ns: int) -> str:
        reason, is_loading = self.reason(now_ns), self.state(now_ns) == LOADING
        if is_loading:
            after = f" again, after: {reason}" if reason else ""
            return f"voice {self.voice!r} is loading{after}; try again in some seconds"
        return f"voice {self.voice!r} is away: {reason or 'its engine is not running'}; try again later, or use another voice"

    def _at_capacity(self, now: Occupancy, now_ns: int) -> str:
        alive, capacity = self.alive_engines(now_ns), self.capacity(now_ns)
        refusals = {engine.name: refusal for engine in alive if (refusal := self._refusal(engine, now))}
        remedies = "; ".join(dict.fromkeys(refusal.remedy for refusal in refusals.values()))
        if len(self.engines) == 1:
            return f"voice {self.voice!r} is {refusals[alive[0].name].reason}; {remedies}"
        reasons = [f"{name} is {refusal.reason}" for name, refusal in refusals.items()]
        reasons += [f"{engine.name} is not running now" for engine in self.engines if engine not in alive]
        limit = f" of {capacity.streams}" if capacity else ""
        open_streams = sum(now.count(engine) for engine in alive)
        return (
            f"voice {self.voice!r} is at capacity: {open_streams}{limit} streams are open in its engines; {remedies} "
            f"({'; '.join(reasons)})"
        )

    def _refusal(self, engine: EngineHandle, now: Occupancy) -> Refusal | None:
        """Why an engine that is alive takes no stream now; None if it does."""
        if engine.capacity and now.count(engine) >= engine.capacity.streams:
            return _full(engine, engine.capacity, now)
        if engine.placement != "open":
            return Refusal(
                f"{engine.placement}, and takes no new streams",
                f"try again when another engine has room, or: glowctl uncordon {engine.name}",
            )
        if reason := engine.overload:
            return Refusal(
                f"overloaded and takes no new streams now ({now.count(engine)} are open): {reason}",
                "try again in some seconds",
            )
        return self._machine.refusal(engine, now)


def _full(engine: EngineHandle, capacity: Capacity, now: Occupancy) -> Refusal:
    setting = f"voices.{engine.voice}.max_streams"
    if not capacity.measured:
        return Refusal(
            f"at capacity: {now.as_text(engine)} are open, the most allowed ({setting})",
            "close one, or try again later",
        )
    took = "" if capacity.round_ms is None or capacity.chunk_ms is None else (
        f", with {capacity.round_ms:.1f} ms of work for {capacity.chunk_ms:.1f} ms of sound"
    )  # fmt: skip
    return Refusal(
        f"at capacity: {now.as_text(engine)} are open, as many as this machine was measured to keep up with{took}",
        f"close one, try again later, or set {setting} to another number",
    )
