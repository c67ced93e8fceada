"""What goes out by a socket of the gateway, to peers that read, do not read, or are gone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glowd.daemon.gateway.outgoing import Outgoing
from tests.harness.waiting import until

ROOM, SIZE = 8, 100_000
"""Messages that wait at a peer that does not read, on either side; and their bytes, so that the system keeps few."""


class Peers:
    """A ROUTER, and DEALERs that are connected to it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.router, self._context, self._endpoint = context.socket(zmq.ROUTER), context, endpoint
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.SNDHWM, ROOM)
        self.router.bind(endpoint)
        self.gone: list[bytes] = []
        self.outgoing = Outgoing(self.router, self.gone.append)

    def connect(self, name: bytes) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RCVHWM, ROOM)
        socket.setsockopt(zmq.IDENTITY, name)
        socket.connect(self._endpoint)
        socket.send(b"here")
        self.router.recv_multipart()
        return socket


def numbered(number: int) -> list[bytes]:
    """A message."""
    return [b"%d" % number, bytes(SIZE)]


def received(socket: zmq.Socket[bytes]) -> list[int]:
    """The numbers that wait."""
    found = []
    with contextlib.suppress(zmq.Again):
        while True:
            found.append(int(socket.recv_multipart(zmq.NOBLOCK)[0]))
    return found


def all_of(socket: zmq.Socket[bytes], count: int) -> list[int]:
    """So many numbers, once they have come."""
    found = list[int]()

    def all_read() -> bool:
        found.extend(received(socket))
        return len(found) >= count

    until(all_read, "the messages")
    return found


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    context = zmq.Context[zmq.Socket[bytes]]()
    yield Peers(context, f"ipc://{tmp_path}/router.ipc")
    context.destroy(linger=0)


def test_nothing_is_sent_before_the_flush(peers: Peers) -> None:
    one, two = peers.connect(b"one"), peers.connect(b"two")
    for number in range(3):
        assert peers.outgoing.put(b"one", numbered(number)) and peers.outgoing.put(b"two", numbered(-number))
    assert not one.poll(50) and not two.poll(0)
    peers.outgoing.flush()
    assert all_of(one, 3) == [0, 1, 2] and all_of(two, 3) == [0, -1, -2]


def test_full_queue_takes_nothing_and_loses_nothing(peers: Peers) -> None:
    slow, other, taken = peers.connect(b"slow"), peers.connect(b"other"), 0
    for _ in range(100):  # a burst that is too long, and bursts after it
        taken += sum(peers.outgoing.put(b"slow", numbered(taken + n)) for n in range(10))
        peers.outgoing.flush()
    assert not peers.outgoing.put(b"slow", numbered(0))
    assert taken < 100, "what waits is bounded"
    assert peers.outgoing.put(b"other", numbered(0))
    peers.outgoing.flush()
    assert all_of(other, 1) == [0], "nobody else is held up"
    found = list[int]()

    def all_read() -> bool:
        found.extend(received(slow))
        peers.outgoing.retry()
        return len(found) == taken

    until(all_read, "what was taken")
    assert found == list(range(taken)) and peers.outgoing.put(b"slow", numbered(0))


def test_peer_that_is_gone_is_told_of_and_no_other_suffers(peers: Peers) -> None:
    one, two = peers.connect(b"one"), peers.connect(b"two")
    one.close(0)
    for name in (b"one", b"two", b"nobody"):
        assert peers.outgoing.put(name, numbered(1))

    def told() -> bool:
        peers.outgoing.put(b"one", numbered(1))
        peers.outgoing.flush()
        return set(peers.gone) == {b"one", b"nobody"}

    until(told, "news of both")
    assert all_of(two, 1) == [1]


def test_peer_that_goes_while_its_queue_is_full_is_told_of(peers: Peers) -> None:
    slow = peers.connect(b"slow")
    while peers.outgoing.put(b"slow", numbered(1)):
        peers.outgoing.flush()
    slow.close(0)

    def told() -> bool:
        peers.outgoing.retry()
        return b"slow" in peers.gone

    until(told, "news of it")
    assert peers.outgoing.put(b"slow", numbered(1))
