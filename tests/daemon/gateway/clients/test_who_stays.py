"""Who was let in by a key stays while that key counts: another key of its name does not do."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq

from glowd.clients.transport import connect
from glowd.daemon import wire
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire import Code
from glowd.daemon.wire.address import Address
from tests.fakes.joined import FakeJoined
from tests.harness.joining import free_port
from tests.harness.own_gateway import OwnClient, OwnGateway, own_gateway

STEP_NS, LOOKED_NS = 250_000_000, 1_500_000_000
"""A step is shorter than what the gateway takes for an absence of its own; the keys are looked at within a second."""
PLACES = ("server.endpoint", "server.telemetry", "server.engines")


@dataclass
class Site:
    """A gateway that other machines reach, with the places where they do."""

    gateway: OwnGateway
    keys: KeyFiles
    clients: str
    telemetry: str
    engines: str

    def key(self, name: str, role: str, place: str) -> Address:
        return Address(place, "", self.keys.new(name, [role]), self.keys.server()[0])

    def renewed(self, name: str, role: str, place: str) -> Address:
        """Another key of the same name, within one look at the keys."""
        self.keys.revoke(name)
        return self.key(name, role, place)

    def client(self, name: str, role: str = "push") -> OwnClient:
        """One that was welcomed, by a key of its name."""
        made = KeyClient(self.key(name, role, self.clients), name)
        self.gateway.clients.append(made)
        self.gateway.until(lambda: made.received, "an answer")
        return made

    def look(self) -> None:
        """Let the gateway look at its keys."""
        for _ in range(LOOKED_NS // STEP_NS):
            self.gateway.time.ahead_ns += STEP_NS
            self.gateway.gateway.step()


class KeyClient(OwnClient):
    """A client of another machine."""

    def __init__(self, address: Address, name: str) -> None:
        self.received: list[wire.Message] = []
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        connect(self.socket, address, False)
        self.send(wire.Hello(name, max_version=wire.VERSION))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    places, keys = [f"tcp://127.0.0.1:{free_port()}" for _ in PLACES], KeyFiles(tmp_path / "keys")
    settings = [f"{name}={place}" for name, place in zip(PLACES, places, strict=True)]
    with own_gateway(tmp_path, *settings, f"server.keys={keys.directory}") as gateway:
        yield Site(gateway, keys, *places)


def test_new_key_of_a_name_does_not_keep_the_old_client(site: Site) -> None:
    leaked, stays = site.client("desk"), site.client("hall")
    site.renewed("desk", "admin", site.clients)
    site.look()
    site.gateway.until(lambda: leaked.all(wire.Error), "its end")
    (error,) = leaked.all(wire.Error)
    assert (error.code, error.fatal, error.text) == (Code.NOT_ALLOWED, True, "the key desk was revoked")
    assert stays.all(wire.Error) == []


def test_new_key_of_a_name_does_not_keep_the_old_engine(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        engine = FakeJoined(site.key("pool", "engine", site.engines), "far")
        stack.callback(engine.crash)
        site.gateway.until(lambda: engine.joined, "it has joined")
        address = site.renewed("pool", "engine", site.engines)
        site.look()
        site.gateway.until(lambda: engine.turned_away, "its end")
        assert engine.turned_away == "the key pool was revoked"
        successor = FakeJoined(address, "far")
        stack.callback(successor.crash)
        site.gateway.until(lambda: successor.joined, "another has joined")
        assert successor.joined and successor.joined.name == "glow/far", "its place is taken"


def test_key_revoked_in_the_handshake_gives_no_rights(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question whether it may come in and the answer who it is."""
    authentication = site.gateway.gateway._authentication
    assert authentication is not None
    site.gateway.before(monkeypatch, authentication, "curve_user_id", lambda: site.keys.revoke("desk"))
    client = site.client("desk")
    assert client.all(wire.Welcome) == []
    assert [error.text for error in client.all(wire.Error)] == ["the key desk was revoked"]
