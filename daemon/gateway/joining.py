"""Engines of other machines: they join, are told apart by their connections, and leave.

Rules: no socket; time is passed in. What an engine sends about its streams goes on to `take`, as that of an engine of this
machine does. An engine that sends what no engine would is turned away: its streams move on, and nobody else notices.

ZeroMQ names a connection, not an engine. An engine whose connection was lost comes back by another one, under the same name; it
has dropped its streams then, and is given them again. One that stood still may have its connection and not its place: what it
goes on to send is ignored, and it is asked to join again.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from glowd.daemon import engine_link, ipc
from glowd.daemon.gateway.handles.engine import EngineHandle, Origin, same_shape
from glowd.daemon.gateway.handles.link import Link
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.runtime.keys import ClientKey, Keys
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.runtime.told import Told
from glowd.daemon.wire import WireError
from glowd.daemon.wire.fields import Array, Message

MAX_FAULTS = 8
"""Messages of an engine that cannot be read, before it is turned away."""
MAX_SAMPLE = 4.5
"""Times full scale; an engine sends none above 4 (renderer.py)."""
FORGET_NS, KEYS_NS = 60_000_000_000, 1_000_000_000
"""How long an engine that is lost is known, and how often keys are looked at."""

FORMER = 256
"""Connections that are not used any more and of which the version is known."""
LOST_PLACE = "it was lost, and is reached by another connection, or another engine has its name; start it again"

log = logging.getLogger("glowd.gateway")

Take = Callable[[EngineHandle, Message, int], object]
Send = Callable[[bytes, Message], bool]


class JoinedEngine:
    """An engine that has joined: its handle, and the connection by which it is reached now. b"": by none."""

    def __init__(self, handle: EngineHandle, now_ns: int) -> None:
        self.handle, self.route, self.faults, self.joined_ns = handle, b"", 0, now_ns
        self.link = Link(engine_link.VERSION)
        self.is_missed = False
        """Whether it was said that it is lost."""

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing was heard of it."""
        return now_ns - max(self.joined_ns, self.handle.last_seen_ns or 0)


class Joining:
    """The engines that have joined. Owner: the gateway's only thread."""

    def __init__(
        self,
        roster: Roster,
        send: Send,
        keys: Keys,
        take: Take,
        dialled: Callable[[int, str], None],
        name: str,
    ) -> None:
        """`send` sends to a connection, and returns whether it could. `keys`: those that count.

        `take` is given what an engine sends, and the time. `dialled` is told that an engine joins by the connection with this
        descriptor (""), or which gateway has it. `name`: that of this gateway, for people.
        """
        self._roster, self._send, self._keys, self._take = roster, send, keys, take
        self._dialled, self._name, self._refused = dialled, name, Told()
        self._engines: dict[str, JoinedEngine] = {}
        self._by_route: dict[bytes, JoinedEngine] = {}
        self._unwanted: deque[tuple[bytes, int, str]] = deque(maxlen=64)
        """Key, instance and fault of engines that were turned away."""
        self._former: deque[tuple[bytes, int]] = deque(maxlen=FORMER)
        """Connections by which no engine is reached any more, and the version that was spoken there."""
        self._keys_read_ns = 0

    # ---------------------------------------------------------------- messages

    def handle(self, route: bytes, sender_of: Callable[[], Sender], parts: list[bytes], now_ns: int) -> None:
        """Handle a message of a connection. `sender_of`: what ZeroMQ knows of that; slow."""
        engine = self._by_route.get(route)
        try:
            message = engine_link.decode(parts)
        except WireError as error:
            if engine is not None:
                self._fault(engine, str(error))
            return
        if isinstance(message, engine_link.Join):
            sender = sender_of()
            self._dialled(sender.descriptor, "")
            self._join(route, sender, message, now_ns)
        elif isinstance(message, engine_link.Taken) and engine is None:
            self._dialled(sender_of().descriptor, message.by)
        elif engine is not None:
            self._of_engine(engine, message, now_ns)
        elif isinstance(message, ipc.Ready):  # it is sent each second by an engine that takes itself for known
            self._ask_to_join(route)

    def _of_engine(self, engine: JoinedEngine, message: Message, now_ns: int) -> None:
        match message:
            case engine_link.Echo():
                engine.link.echo(message, now_ns)
            case engine_link.Leaving():
                self._let_go(engine, "it leaves")
            case ipc.Ready() if text := self._misfit(engine.handle, message, now_ns):
                self._turn_away(engine, text)
            case ipc.Pcm() if not is_sound(message.audio):
                self._turn_away(engine, "it has sent samples that are no sound")
            case ipc.Ready() | ipc.Pcm() | ipc.Failed() | ipc.Load():
                self._take(engine.handle, engine.link.in_our_clock(message, now_ns), now_ns)
        if engine.handle.fault:  # it has broken a stream
            self._turn_away(engine, engine.handle.fault)

    def _ask_to_join(self, route: bytes) -> None:
        """An engine is not known by this connection, or not any more, and cannot know that."""
        if dict(self._former).get(route, engine_link.VERSION) >= engine_link.JOIN_AGAIN_SINCE:
            self._send(route, engine_link.JoinAgain())
        else:
            self._send(route, engine_link.TurnedAway(LOST_PLACE))

    def _fault(self, engine: JoinedEngine, text: str) -> None:
        """An engine has sent what cannot be read."""
        engine.faults += 1
        log.warning("engine %s has sent what cannot be read: %s", engine.handle.name, text)
        if engine.faults >= MAX_FAULTS:
            self._turn_away(engine, f"it has sent {engine.faults} messages that cannot be read, the last one: {text}")

    def _misfit(self, handle: EngineHandle, ready: ipc.Ready, now_ns: int) -> str:
        """Why an engine cannot serve beside those that do; "" if it can."""
        for other in (
            self._roster.pools[handle.voice].alive_engines(now_ns) if handle.voice in self._roster.pools else []
        ):
            if other is not handle and not same_shape(other.info, ready.info):
                return f"its voice {handle.voice!r} has another mel format or another delay than that of engine {other.name}"
        return ""

    # ------------------------------------------------------- joining and leaving

    def _join(self, route: bytes, sender: Sender, join: engine_link.Join, now_ns: int) -> None:
        if (known := self._by_route.get(route)) is not None:  # the answer is on its way
            self._send(route, self._joined(known))
            return
        key, reason = sender.key_name, self._refusal(sender, join)
        if (
            self._refused.is_new((key, join.engine), reason) and reason
        ):  # one that is started again and again says it each time
            log.warning("engine %s, with the key %s, is turned away: %s", join.engine, key, reason)
        if reason:
            self._send(route, engine_link.TurnedAway(reason[:1000]))
            return
        engine = self._returning(key, join, now_ns) or self._new(join, now_ns)
        self._unroute(engine)
        self._by_route[route] = engine
        engine.route, engine.link, engine.faults = route, Link(engine_link.agreed_version(join) or 0), 0
        origin = Origin(join.engine, key, join.host, join.cores, sender.key)
        engine.handle.connect(origin, lambda message: self._send(route, message), engine.link, join.instance)
        if engine.handle.name not in self._roster.engines:
            self._roster.admit(engine.handle)
        log.info("engine %s has joined from %s, with the key %s", engine.handle.name, join.host, key)
        self._send(route, self._joined(engine))

    def _joined(self, engine: JoinedEngine) -> engine_link.Joined:
        return engine_link.Joined(engine.link.version, engine.handle.name, self._name[:200])

    def _refusal(self, sender: Sender, join: engine_link.Join) -> str:
        """Why an engine may not join; "" if it may."""
        if not may_join(sender.key, self._keys()):
            return f"the key {sender.key_name} was revoked, or has not the role engine"
        if fault := next((fault for *who, fault in self._unwanted if who == [sender.key, join.instance]), ""):
            return fault
        if engine_link.agreed_version(join) is None:
            return (
                f"it speaks the versions {join.oldest_version} to {join.version} of the engine link, and this gateway "
                f"{engine_link.OLDEST_VERSION} to {engine_link.VERSION}; update the older one"
            )
        if (voice := self._roster.settings(join.voice)) is None:
            voices = ", ".join(self._roster.pools)
            return (
                f"there is no voice {join.voice!r} here; add [voices.{join.voice}] with devices = []; voices: {voices}"
            )
        for name in ("chunk_frames", "max_chunk_frames"):
            if getattr(join, name) > (most := getattr(voice, name)):
                return f"its {name} is {getattr(join, name)}, and voices.{join.voice}.{name} is {most} here; give it the same"
        return ""

    def _returning(self, key: str, join: engine_link.Join, now_ns: int) -> JoinedEngine | None:
        """The engine that comes back: the same process, or another one in the place of one that is gone."""
        for engine in self._engines.values():
            handle, origin = engine.handle, engine.handle.origin
            if origin is None or (origin.key_name, origin.name, handle.voice) != (key, join.engine, join.voice):
                continue
            if handle.instance == join.instance or not (handle.is_alive(now_ns) and self._reaches(engine)):
                return engine
        return None

    def _reaches(self, engine: JoinedEngine) -> bool:
        """Whether its connection is there. To ask is to send, and this message changes nothing."""
        return self._send(engine.route, self._joined(engine))

    def _new(self, join: engine_link.Join, now_ns: int) -> JoinedEngine:
        """An engine that was not here: under the name that it has given itself, and a number if another one has that."""
        name, number = f"{join.voice}/{join.engine}", 2
        while name in self._roster.engines:
            name, number = f"{join.voice}/{join.engine}-{number}", number + 1
        self._engines[name] = JoinedEngine(EngineHandle(name, join.voice, lambda _: False), now_ns)
        return self._engines[name]

    def _let_go(self, engine: JoinedEngine, why: str) -> None:
        if not engine.handle.is_leaving:
            log.info("engine %s gets no more streams: %s", engine.handle.name, why)
        engine.handle.leave()

    def _turn_away(self, engine: JoinedEngine, reason: str) -> None:
        """Use an engine no more, and tell it why. Its streams move to another, or wait for one."""
        handle = engine.handle
        if engine.route not in self._by_route:  # it was already
            return
        log.warning("engine %s is turned away: %s", handle.name, reason)
        self._send(engine.route, engine_link.TurnedAway(reason[:1000]))
        if handle.origin:
            self._unwanted.append((handle.origin.public_key, handle.instance, reason))
        self._unroute(engine)
        handle.disconnect(reason)

    def _unroute(self, engine: JoinedEngine) -> None:
        """An engine is not reached by its connection any more."""
        if self._by_route.pop(engine.route, None):
            self._former.append((engine.route, engine.link.version))

    def dismiss(self, name: str) -> bool:
        """An engine is not known any more: tell it, if it has joined. Returns whether it has.

        One that is lost is told nothing: if it goes on, it joins again.
        """
        if (engine := self._engines.pop(name, None)) is None:
            return False
        self._unroute(engine)
        if engine.is_missed and not engine.handle.is_leaving:
            log.info("engine %s does not come back", name)
            return True
        self._send(engine.route, engine_link.Dismissed())
        log.info("engine %s has left", name)
        return True

    def tick(self, now_ns: int) -> None:
        """Measure links; let go of engines that leave or do not come back, and of those whose key was revoked."""
        for route, engine in self._by_route.items():
            if probe := engine.link.probe(now_ns):
                self._send(route, probe)
        for engine in list(self._engines.values()):
            self._miss(engine, now_ns)
            if engine.handle.is_leaving or engine.silent_ns(now_ns) > FORGET_NS:
                self._roster.retire_if_idle(engine.handle)
        if now_ns - self._keys_read_ns >= KEYS_NS:
            self._keys_read_ns, keys = now_ns, self._keys()
            for engine in [*self._by_route.values()]:
                if (origin := engine.handle.origin) and not may_join(origin.public_key, keys):
                    self._turn_away(engine, f"the key {origin.key_name} was revoked")

    def _miss(self, engine: JoinedEngine, now_ns: int) -> None:
        """Say once that an engine is lost: what happens to its streams follows from it."""
        handle = engine.handle
        is_lost = handle.last_seen_ns is not None and engine.route in self._by_route and not handle.is_alive(now_ns)
        if is_lost and not engine.is_missed:
            log.warning(
                "engine %s is lost: %s; its streams go on in another one, or wait", handle.name, handle.reason(now_ns)
            )
        engine.is_missed = is_lost


def may_join(public: bytes, keys: Mapping[bytes, ClientKey]) -> bool:
    """Whether engines with this public key may serve."""
    return (found := keys.get(public)) is not None and found.rights.engine


def is_sound(samples: Array) -> bool:
    """Whether these are samples that an engine could have made: it silences what is not finite or far beyond full scale."""
    return not samples.size or bool(np.abs(samples).max() <= MAX_SAMPLE)  # NaN is not
