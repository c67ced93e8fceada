"""Engines that stood still and are not known any more when they go on: they are told, and join again."""

from unittest.mock import Mock

import pytest

from glowd.daemon import engine_link, ipc
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.handles.engine import SILENT_NS, EngineHandle
from glowd.daemon.gateway.joining import FORGET_NS, Joining
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire.fields import Message
from tests.daemon.gateway.placement.test_pool import PlacementHarness
from tests.daemon.link_messages import INFO
from tests.harness.joined_gateway import ALONE

POOL = Sender(key=b"pool", key_name="pool")
BEFORE = engine_link.JOIN_AGAIN_SINCE - 1


class Gate:
    """What engines send and are told, without a socket. Every connection has the same key."""

    def __init__(self) -> None:
        self.now_ns, self.told = 1_000_000_000_000, list[tuple[bytes, Message]]()
        self.roster = Roster(
            load(None, [ALONE, "server.engines=tcp://127.0.0.1:1"]),
            lambda spec: pytest.fail(spec.name),
            PlacementHarness().streams,
            4,
        )
        self.joining = Joining(self.roster, self._send, lambda: {POOL.key: Mock()}, self._take, lambda *_: None, "here")

    def _send(self, route: bytes, message: Message) -> bool:
        if not isinstance(message, engine_link.Probe):
            self.told.append((route, message))
        return True

    def _take(self, engine: EngineHandle, message: Message, now_ns: int) -> None:
        engine.handle(message, [], now_ns)

    def hear(self, route: bytes, message: Message) -> list[Message]:
        """What an engine is told when it has sent a message."""
        self.told.clear()
        self.joining.handle(route, lambda: POOL, engine_link.encode(message), self.now_ns)
        return [answer for to, answer in self.told if to == route]

    def join(self, route: bytes, version: int = engine_link.VERSION) -> str:
        """An engine joins by a connection that is named as it itself is; returns its name at the gateway."""
        join = engine_link.Join(version, 1, "glow", "one", instance_of(route), "host", 4, 4, 16)
        *_, joined = self.hear(route, join)
        assert isinstance(joined, engine_link.Joined), joined
        self.hear(route, ready(route))
        return joined.name

    def tick(self) -> None:
        self.joining.tick(self.now_ns)
        for name in self.roster.tick(self.now_ns):
            assert self.joining.dismiss(name)


def instance_of(route: bytes) -> int:
    return int.from_bytes(route, "big")


def ready(route: bytes) -> ipc.Ready:
    return ipc.Ready("glow", INFO, instance_of(route))


@pytest.fixture
def gate() -> Gate:
    """Engine `b` has the place of engine `a`, which stood still."""
    made = Gate()
    assert made.join(b"a") == "glow/one"
    made.now_ns += SILENT_NS + 1
    assert made.join(b"b") == "glow/one"
    return made


def test_displaced_engine_is_asked_to_join_and_does(gate: Gate) -> None:
    assert gate.hear(b"a", ready(b"a")) == [engine_link.JoinAgain()]
    assert gate.join(b"a") == "glow/one-2"
    assert not gate.hear(b"a", ready(b"a")) and not gate.hear(b"b", ready(b"b")), "both serve"
    assert all(engine.is_alive(gate.now_ns) for engine in gate.roster.engines.values())


def test_displaced_engine_is_told_of_its_silence_only_by_ready(gate: Gate) -> None:
    """It may have many samples to send; each second it says that it is ready."""
    assert gate.hear(b"a", ipc.Pcm(7, 0, 0, True)) == [] == gate.hear(b"a", ipc.Failed(7, "no"))


@pytest.mark.parametrize("version", range(1, BEFORE + 1))
def test_displaced_engine_of_an_old_version_is_ended(version: int) -> None:
    gate = Gate()
    gate.join(b"a", version)
    gate.now_ns += SILENT_NS + 1
    gate.join(b"b", version)
    (answer,) = gate.hear(b"a", ready(b"a"))
    assert isinstance(answer, engine_link.TurnedAway) and "another connection" in answer.text


@pytest.mark.parametrize("version", [1, BEFORE])
def test_old_engine_that_is_dismissed_is_told_what_it_knows(version: int) -> None:
    gate = Gate()
    gate.join(b"a", version)
    gate.hear(b"a", engine_link.Leaving())
    gate.tick()
    assert gate.told[-1] == (b"a", engine_link.Dismissed())
    assert [type(answer) for answer in gate.hear(b"a", ready(b"a"))] == [engine_link.TurnedAway]


def test_connection_that_never_joined_is_asked_to() -> None:
    assert Gate().hear(b"new", ready(b"new")) == [engine_link.JoinAgain()]


def test_engine_that_was_forgotten_joins_again_and_does_not_end() -> None:
    gate = Gate()
    gate.join(b"a")
    gate.now_ns += FORGET_NS + 1
    gate.told.clear()
    gate.tick()
    assert not gate.roster.engines and gate.told == [], "it never asked to leave"
    assert gate.hear(b"a", ready(b"a")) == [engine_link.JoinAgain()]
    assert gate.join(b"a") == "glow/one"
