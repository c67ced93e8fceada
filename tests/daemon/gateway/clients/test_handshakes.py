"""A mistake in answering one handshake costs that one only: its peer comes in at its next try, others at once."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glowd.clients.transport import connect
from glowd.daemon.gateway.clients.authentication import CLIENT_DOMAIN, Authentication
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.runtime.sockets import Remote, bind_clients, receive_of_client, sender_of
from glowd.daemon.wire.address import Address
from tests.harness.joining import free_port
from tests.harness.waiting import WAIT_S

ROUNDS_MS, MOST_BYTES = 100, 10_000


class Door:
    """A socket for clients of other machines, and who answers for it."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self.keys, url = KeyFiles(directory / "keys"), f"tcp://127.0.0.1:{free_port()}"
        server_key, secret = self.keys.server()
        self.authentication = Authentication(context, self.keys)
        remote = Remote(url, secret, CLIENT_DOMAIN)
        self.socket = bind_clients(context, f"ipc://{directory}/local", MOST_BYTES, remote)
        self.address = Address(url, "", self.keys.new("desk", ["push"]), server_key)
        self.peers = list["zmq.Socket[bytes]"]()

    def peer(self, name: bytes) -> None:
        """One that comes, and says its name."""
        made: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        connect(made, self.address, False)
        made.send(name)
        self.peers.append(made)

    def heard(self, count: int) -> list[bytes]:
        """What so many peers have said."""
        poller, found = zmq.Poller(), list[bytes]()
        for source in (self.socket, self.authentication.zap_socket):
            poller.register(source, zmq.POLLIN)
        for _ in range(WAIT_S * 1000 // ROUNDS_MS):
            ready = dict(poller.poll(ROUNDS_MS))
            if self.authentication.zap_socket in ready:
                self.authentication.answer()
            if self.socket in ready:
                identity, parts = receive_of_client(self.socket)
                assert sender_of(identity).key_name == "desk"
                found += parts
            if len(found) == count:
                return found
        raise AssertionError(f"only these came in: {found}")

    def close(self) -> None:
        for socket in (*self.peers, self.socket):
            socket.close(0)
        self.authentication.stop()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with zmq.Context() as context:
        made = Door(context, tmp_path)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("place", ["before", "after"])
def test_mistake_in_a_handshake_costs_that_one_only(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """The mistake comes before the answer, or after the peer was let in by it."""
    part, name = {"before": (door.keys, "find"), "after": (door.authentication, "_send_zap_reply")}[place]
    right = getattr(part, name)

    def wrong(*given: object) -> object:
        monkeypatch.setattr(part, name, right)
        if place == "after":
            right(*given)
        raise RuntimeError("a mistake")

    monkeypatch.setattr(part, name, wrong)
    with caplog.at_level(logging.ERROR):
        door.peer(b"first")
        door.peer(b"second")
        assert sorted(door.heard(2)) == [b"first", b"second"]
        door.peer(b"third")
        assert door.heard(1) == [b"third"]
    assert [record.getMessage() for record in caplog.records] == ["a handshake could not be answered"]


def test_peers_try_again_while_no_file_can_be_opened(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls, scandir = list[object](), os.scandir

    def full(path: object) -> object:
        calls.append(path)
        if len(calls) <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return scandir(door.keys.clients)

    monkeypatch.setattr(os, "scandir", full)
    with caplog.at_level(logging.WARNING):
        door.peer(b"patient")
        assert door.heard(1) == [b"patient"]
    (said,) = caplog.records
    assert "must try again" in said.getMessage() and "Too many open files" in said.getMessage()
    assert len(calls) > 3 and not said.exc_info
