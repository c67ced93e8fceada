"""The telemetry is taken some streams at a time, and only while somebody watches."""

from collections import deque
from typing import Any, cast

import msgpack
import pytest
import zmq

from glowd.daemon.gateway import snapshot
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.gateway.clients.watchers import Watchers
from glowd.daemon.gateway.publishing import EVERY_NS, LEAST_STREAMS, PASSES, Publisher
from tests.harness.router import RouterHarness

TICK_NS = 20_000_000
STREAMS = 3 * LEAST_STREAMS + 1
SUBSCRIBE, UNSUBSCRIBE = b"\x01", b"\x00"


class FakeSocket:
    """The XPUB of the telemetry: subscriptions in, snapshots out."""

    def __init__(self) -> None:
        self.subscriptions, self.sent = deque[bytes](), list[dict[str, Any]]()

    def recv(self, flags: int, copy: bool) -> zmq.Frame:
        if not self.subscriptions:
            raise zmq.Again
        return zmq.Frame(self.subscriptions.popleft())

    def send(self, packed: bytes, flags: int) -> None:
        self.sent.append(msgpack.unpackb(packed))


class Publishing:
    """A publisher of a router with many streams."""

    def __init__(self, streams: int = STREAMS) -> None:
        most = (f"server.{name}={streams}" for name in ("max_streams", "max_peer_streams"))
        self.harness, self.socket = RouterHarness(*most), FakeSocket()
        self.harness.connect(b"a")
        for number in range(streams):
            self.harness.open(b"a", f"s{number}")
        socket = cast("zmq.Socket[bytes]", self.socket)
        self.publisher = Publisher(socket, Watchers(socket, Visitors()), self.harness.snapshots)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.harness.now_ns += TICK_NS
            self.publisher.tick(self.harness.now_ns)

    def until_sent(self) -> int:
        """Ticks until the next snapshot is sent."""
        before = len(self.socket.sent)
        for ticks in range(1, 100):
            self.tick()
            if len(self.socket.sent) > before:
                return ticks
        raise AssertionError("nothing was sent in 100 ticks")


def test_snapshot_is_taken_some_streams_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "rss_bytes", lambda: 40 << 20)
    rig = Publishing()
    rig.socket.subscriptions.append(SUBSCRIBE)
    assert rig.until_sent() == 4
    assert rig.socket.sent == [rig.harness.snapshots.take().to_map()]
    assert rig.until_sent() == EVERY_NS // TICK_NS


def test_many_streams_are_taken_in_a_bounded_time() -> None:
    rig = Publishing(LEAST_STREAMS * PASSES * 2)
    rig.socket.subscriptions.append(SUBSCRIBE)
    assert rig.until_sent() <= PASSES + 1
    assert len(rig.socket.sent[0]["streams"]) == LEAST_STREAMS * PASSES * 2


def test_few_streams_are_published_at_once() -> None:
    rig = Publishing(3)
    rig.socket.subscriptions.append(SUBSCRIBE)
    assert rig.until_sent() == 1


def test_nothing_is_taken_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Publishing()
    monkeypatch.setattr(rig.harness.snapshots, "map_by_streams", lambda: pytest.fail("a snapshot for nobody"))
    rig.tick(60)
    rig.socket.subscriptions.extend([SUBSCRIBE, UNSUBSCRIBE])
    rig.tick(60)
    assert rig.socket.sent == []


def test_streams_may_come_and_go_meanwhile() -> None:
    rig = Publishing()
    rig.socket.subscriptions.append(SUBSCRIBE)
    rig.tick()
    rig.harness.router.disconnect(rig.harness.router.clients[b"a"], "it is gone")
    rig.harness.connect(b"b")
    rig.harness.open(b"b", "late")
    assert rig.until_sent() == 1
    assert len(rig.socket.sent[0]["streams"]) == LEAST_STREAMS and "late" not in rig.socket.sent[0]["streams"]
    rig.until_sent()
    assert rig.socket.sent[1]["streams"].keys() == {"late"}


def test_mistake_in_a_snapshot_ends_only_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Publishing()
    rig.socket.subscriptions.append(SUBSCRIBE)
    rig.tick()
    stream = rig.harness.streams.find(f"s{STREAMS - 1}")
    assert stream is not None
    owner = stream.owner
    monkeypatch.setattr(stream, "owner", None)
    with pytest.raises(AttributeError):
        rig.tick(10)
    monkeypatch.setattr(stream, "owner", owner)
    rig.until_sent()
    assert len(rig.socket.sent[0]["streams"]) == STREAMS
