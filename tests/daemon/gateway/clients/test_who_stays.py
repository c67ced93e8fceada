"""Who was let in by a key stays while that key counts: another key of its name does not do."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from glowd.clients.transport import connect
from glowd.daemon import wire
from glowd.daemon.gateway.clients import watchers
from glowd.daemon.runtime import keys
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire import Code
from glowd.daemon.wire.address import Address
from tests.fakes.joined import FakeJoined
from tests.harness.hostile import Dealers, Outcome, Plan
from tests.harness.joining import free_port
from tests.harness.own_gateway import OwnClient, OwnGateway, own_gateway

LOOKING = 4
"""Clients, engines, the telemetry, and who reads for them."""
STEP_NS, LOOKED_NS = 250_000_000, 1_500_000_000
"""A step is shorter than what the gateway takes for an absence of its own; the keys are looked at within a second."""
DESCRIPTORS = 10
"""Of one more client."""
KEYS, PEERS = 20, 8
"""Keys of nobody; and clients, and engines, with keys of their own."""
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
    places, files = [f"tcp://127.0.0.1:{free_port()}" for _ in PLACES], KeyFiles(tmp_path / "keys")
    settings = [f"{name}={place}" for name, place in zip(PLACES, places, strict=True)]
    with own_gateway(tmp_path, *settings, f"server.keys={files.directory}") as gateway:
        yield Site(gateway, files, *places)


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


def lose_role(site: Site) -> None:
    """Its file is changed in its place."""
    path = site.keys.clients / "screen.key"
    path.write_text(path.read_text().replace("metrics", "push"))


LOSSES: dict[str, Callable[[Site], object]] = {
    "revoked": lambda site: site.keys.revoke("screen"),
    "made anew": lambda site: site.renewed("screen", "metrics", site.telemetry),
    "without its role": lose_role,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_watcher_whose_key_counts_no_more_is_ended(site: Site, loss: str) -> None:
    with watching(site, "screen") as screen, watching(site, "wall") as wall:
        LOSSES[loss](site)
        site.look()
        site.gateway.until(lambda: screen.get_monitor_socket().poll(0), "its end")
        site.look()
        assert not wall.get_monitor_socket().poll(0)


def test_revoked_key_gets_no_figures_by_subscribing_late(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "KEYS_EVERY_NS", 1 << 62)
    with watching(site, "screen", subscribes=False) as screen:
        site.keys.revoke("screen")
        screen.subscribe(b"")
        site.gateway.until(lambda: screen.get_monitor_socket().poll(0), "its end")
        site.look()
        assert not screen.poll(0)


@contextlib.contextmanager
def watching(site: Site, name: str, subscribes: bool = True) -> Iterator["zmq.Socket[bytes]"]:
    """Somebody who gets figures, by a key of this name."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    with contextlib.closing(socket) as made:
        made.setsockopt(zmq.LINGER, 0)
        monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        connect(made, site.key(name, "metrics", site.telemetry), False)
        site.gateway.until(lambda: monitor.poll(0), "it is let in")
        monitor.recv_multipart()
        if subscribes:
            made.subscribe(b"")
            site.gateway.until(lambda: made.poll(0), "figures")
        try:
            yield made
        finally:
            made.disable_monitor()
            monitor.close()


def test_listener_whose_key_lost_a_role_hears_no_more(site: Site) -> None:
    listener, path = site.client("radio", "listen *"), site.keys.clients / "radio.key"
    site.gateway.open(site.gateway.one, "news-1", "socket")
    listener.send(wire.Listen("news-1"), wire.Listen("talk-1"), wire.Ping(1))
    site.gateway.until(lambda: listener.all(wire.Pong), "it listens")
    path.write_text(path.read_text().replace("listen *", "listen talk-*"))
    site.look()
    site.gateway.until(lambda: listener.all(wire.Error), "it is told")
    (error,) = listener.all(wire.Error)
    assert (error.code, error.fatal, error.stream) == (Code.NOT_ALLOWED, False, "news-1")
    assert error.text == "listen needs the role 'listen news-1', which the key radio has not (glowctl key list)"
    (found,) = (one for one in site.gateway.gateway.router.clients.values() if one.name == "radio")
    assert set(found.listening) == {"talk-1"}
    site.look()
    assert len(listener.all(wire.Error)) == 1, "it is told once"


def test_streams_of_a_key_that_lost_push_are_closed(site: Site) -> None:
    speaker, path = site.client("desk", "push"), site.keys.clients / "desk.key"
    site.gateway.open(speaker, "own", "socket")
    site.gateway.open(site.gateway.one, "other", "socket")
    path.write_text(path.read_text().replace("push", "metrics"))
    site.look()
    site.gateway.until(lambda: speaker.all(wire.Error), "it is told")
    (error,) = speaker.all(wire.Error)
    assert (error.code, error.fatal, error.stream) == (Code.NOT_ALLOWED, True, "own")
    assert {stream.name for stream in site.gateway.gateway.streams} == {"other"}
    assert len(site.gateway.gateway.router.clients) == 3, "the client stays"


def test_keys_are_read_once_a_look_for_all_peers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "SETTLED_NS", -(1 << 62))  # as if everything had been written some time ago
    with contextlib.ExitStack() as stack:
        for number in range(KEYS):
            site.keys.new(f"spare-{number}", ["push"])
        for number in range(PEERS):
            site.client(f"client-{number}")
            engine = FakeJoined(site.key(f"engine-{number}", "engine", site.engines), f"far-{number}")
            stack.callback(engine.crash)
            site.gateway.until(lambda: engine.joined, "it has joined")  # noqa: B023 (called at once)
        site.look()
        looks = Looks(site.keys, monkeypatch)
        site.look()
    assert looks.directories == 2, "once a second"
    assert looks.asked <= 2 * LOOKING, "those who look ask once for all"


class Looks:
    """How often the directory of the keys was read, and how often the system was asked for that, or one file of it."""

    def __init__(self, files: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directories = self.asked = 0
        self._scandir, self._stat, self._clients = os.scandir, os.stat, str(files.clients)
        monkeypatch.setattr(os, "scandir", self._read)
        monkeypatch.setattr(os, "stat", self._ask)

    def _read(self, path: Any) -> Any:
        self.directories += str(path) == self._clients
        return self._scandir(path)

    def _ask(self, path: Any, **options: Any) -> os.stat_result:
        self.asked += str(path).startswith(self._clients)
        return self._stat(path, **options)


def test_unknown_keys_in_numbers_keep_nobody_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    client, outcome, plan = site.client("desk"), Outcome(), Plan(messages=0)
    address = site.key("wall", "push", site.clients)
    known, descriptors = len(site.gateway.gateway.visitors), open_files()
    dealers = Dealers(address, outcome)
    thread = threading.Thread(target=dealers.knock, args=(plan.unknown_keys,))
    with caplog.at_level(logging.WARNING):
        thread.start()
        site.gateway.until(lambda: not thread.is_alive(), "all were refused")
    dealers.leave()
    assert outcome.refused == plan.unknown_keys
    assert len(caplog.records) < plan.unknown_keys / 2, "the log is not filled by strangers"
    late = KeyClient(address, "wall")
    site.gateway.clients.append(late)
    site.gateway.until(lambda: late.all(wire.Welcome), "who has a key comes in")
    assert client.all(wire.Error) == []
    site.gateway.until(lambda: len(site.gateway.gateway.visitors) == known + 1, "nothing is left of them")
    site.gateway.until(lambda: open_files() <= descriptors + DESCRIPTORS, "nor of their sockets")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_key_revoked_in_the_handshake_gives_no_rights(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question whether it may come in and the answer who it is."""
    authentication = site.gateway.gateway._authentication
    assert authentication is not None
    site.gateway.before(monkeypatch, authentication, "curve_user_id", lambda: site.keys.revoke("desk"))
    client = site.client("desk")
    assert client.all(wire.Welcome) == []
    assert [error.text for error in client.all(wire.Error)] == ["the key desk was revoked"]
