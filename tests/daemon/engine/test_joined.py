"""An engine at a gateway that the test plays: whoever dials, and what it says of probes that lay unread."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
import zmq
from zmq.utils import z85

from glowd.daemon import engine_link, ipc
from glowd.daemon.config_reader import load
from glowd.daemon.engine.connection import DiallingConnection
from glowd.daemon.engine.joined import JoinedEngine, LoadedVoice
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.runtime.rundir import is_busy
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.flow.mel import Floats
from glowd.flow.vocoder import Stream
from tests.daemon.link_messages import INFO
from tests.fakes.vocoder import FakeVocoder
from tests.harness.joining import free_port
from tests.harness.waiting import WAIT_S, until

M = TypeVar("M", bound=Message)


class HeldVocoder(FakeVocoder):
    """Its calls last until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.entered = threading.Event(), threading.Event()

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        self.entered.set()
        assert self.go.wait(WAIT_S)
        return super().step(streams, frames)


class Served:
    """A gateway's socket, and the engine that has joined it in a thread."""

    def __init__(self, listens: bool = False, redials: bool = True) -> None:
        self.context = zmq.Context()
        public, self._secret = zmq.curve_keypair()
        _, mine = zmq.curve_keypair()
        self.url = f"tcp://127.0.0.1:{free_port()}"
        address = Address(self.url, "", z85.decode(mine), z85.decode(public))
        self.vocoder, self._route = HeldVocoder(), b""
        self.engine = JoinedEngine(load(None, []), "glow", address, "one", listen=self.url if listens else "")
        self.engine.use(LoadedVoice(self.vocoder, ipc.Ready("glow", INFO, 7)))
        self._thread = threading.Thread(target=self.engine.run)
        self._thread.start()
        if listens:  # or one that does not dial again would come too early
            until(lambda: is_busy(self.url), "that it listens")
        self.router = self.gateway(listens, redials)
        self.join()

    def gateway(self, dials: bool, redials: bool = True) -> "zmq.Socket[bytes]":
        """A gateway's socket. `redials`: when its connection has ended."""
        router = self.context.socket(zmq.ROUTER)
        for option, value in ((zmq.CURVE_SERVER, 1), (zmq.IMMEDIATE, 1), (zmq.LINGER, 0)):
            router.setsockopt(option, value)
        router.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        if not redials:
            router.setsockopt(zmq.RECONNECT_IVL, -1)
        router.connect(self.url) if dials else router.bind(self.url)
        return router

    def join(self) -> None:
        join = self.expect(engine_link.Join)
        self.send(engine_link.Joined(engine_link.agreed_version(join) or 0, "glow/one", "host:/run/glowd"))
        self.expect(ipc.Ready)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.router.send_multipart([self._route, *engine_link.encode(message)])

    def expect(self, kind: type[M]) -> M:
        """The next message of a type."""
        until_s = time.monotonic() + WAIT_S
        while self.router.poll(max(0, int(1000 * (until_s - time.monotonic())))):
            self._route, *parts = self.router.recv_multipart()
            message = engine_link.decode(parts)
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self.vocoder.go.set()
        self.engine.stop()
        self._thread.join()
        self.context.destroy(linger=0)


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def listening() -> Iterator[Served]:
    found = Served(listens=True)
    try:
        yield found
    finally:
        found.stop()


def probe(served: Served) -> engine_link.Echo:
    served.send(engine_link.Probe(time.monotonic_ns()))
    return served.expect(engine_link.Echo)


def test_idle_engine_reads_a_probe_at_once(served: Served) -> None:
    echoes = [probe(served) for _ in range(8)]
    assert all(echo.t_sent_ns <= echo.t_read_ns <= echo.t_echo_ns <= time.monotonic_ns() for echo in echoes)
    until(lambda: probe(served).unread_ns == 0, "a probe that finds it waiting")


def test_busy_engine_says_how_long_a_probe_may_have_waited(served: Served) -> None:
    served.send(ipc.Start(1, 0, 0), ipc.Frames(1, 0, 8, 80, mel=np.zeros((8, 80), np.float32)))
    assert served.vocoder.entered.wait(WAIT_S)
    served.send(engine_link.Probe(time.monotonic_ns()))
    time.sleep(0.05)  # a call to the network
    served.vocoder.go.set()
    echo = served.expect(engine_link.Echo)
    assert echo.unread_ns >= echo.t_read_ns - echo.t_sent_ns >= 50_000_000


@pytest.mark.parametrize("kind", ["served", "listening"])
def test_engine_that_is_not_known_any_more_joins_again(kind: str, request: pytest.FixtureRequest) -> None:
    found: Served = request.getfixturevalue(kind)
    found.send(ipc.Start(1, 0, 0), ipc.Frames(1, 0, 8, 80, mel=np.zeros((8, 80), np.float32)))
    assert found.vocoder.entered.wait(WAIT_S)
    found.send(engine_link.JoinAgain(), engine_link.JoinAgain())  # it has said twice that it is ready
    found.vocoder.go.set()
    found.join()
    load = found.expect(ipc.Load)
    assert isinstance(load.stats, ipc.EngineLoad) and load.stats.streams == 0, "its streams are elsewhere"
    assert probe(found).t_sent_ns and found.engine.joined_as == "glow/one"


def test_leaving_engine_that_is_not_known_any_more_ends(served: Served) -> None:
    served.engine.leave()
    served.expect(engine_link.Leaving)
    served.send(engine_link.JoinAgain())
    until(lambda: not served.is_running, "its end")


def test_engine_that_listens_is_dialled_and_served(listening: Served) -> None:
    assert probe(listening).t_sent_ns


def test_strangers_do_not_end_the_connection_of_a_gateway(listening: Served) -> None:
    """Neither those that speak no ZMTP, nor those with another server key."""
    port = int(listening.url.rpartition(":")[2])
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
    other = listening.context.socket(zmq.ROUTER)
    other.setsockopt(zmq.CURVE_SERVER, 1)
    other.setsockopt(zmq.CURVE_SECRETKEY, zmq.curve_keypair()[1])
    other.connect(listening.url)
    assert not other.poll(300), "nothing of the engine is for it"
    other.close(0)
    for _ in range(3):
        assert probe(listening).t_sent_ns
    assert listening.engine.joined_as == "glow/one"


def test_engine_joins_a_gateway_that_dials_again() -> None:
    """The machine of the first one is gone: its connection is still there when the next one dials."""
    listening = Served(listens=True, redials=False)
    try:
        gone = listening.router
        listening.router = listening.gateway(dials=True)
        listening.join()
        assert probe(listening).t_sent_ns
        gone.close(0)
    finally:
        listening.stop()


def test_gateway_that_dialled_and_is_silent_is_lost(listening: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowd.daemon.engine.listening.SILENT_S", 0.3)
    listening.join()  # by a new connection, as the same socket dials again
    assert probe(listening).t_sent_ns


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "nobody listens there"), ("no-such-name.invalid", "the name has no address")]
)
def test_engine_says_once_what_it_waits_for(caplog: pytest.LogCaptureFixture, host: str, why: str) -> None:
    with zmq.Context() as context:
        address = Address(
            f"tcp://{host}:{free_port()}", f"glowd://pool@{host}", z85.decode(zmq.curve_keypair()[1]), bytes(32)
        )
        with DiallingConnection(context, address) as connection:
            until_s = time.monotonic() + 1.5
            while time.monotonic() < until_s:
                connection.wait(50)
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for a gateway at glowd://pool@{host}: {why}"
    ]


def watch(connection: DiallingConnection, true: Callable[[], object]) -> None:
    """Have a connection hear of what happens, until something has."""
    until_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until_s
        connection.wait(20)


def test_engine_dials_again_after_a_foreign_program(caplog: pytest.LogCaptureFixture) -> None:
    """ZeroMQ itself gives up a place where somebody does not speak its protocol."""
    port = free_port()
    public, secret = zmq.curve_keypair()
    address = Address(f"tcp://127.0.0.1:{port}", "", z85.decode(zmq.curve_keypair()[1]), z85.decode(public))
    with zmq.Context() as context, DiallingConnection(context, address) as connection:
        with socket.create_server(("127.0.0.1", port)) as foreign:
            accepted, _ = foreign.accept()
            accepted.sendall(
                b"SSH-2.0-OpenSSH_9.6 a banner that is long enough for a greeting, and is none of ZMTP\r\n" * 3
            )
            watch(connection, lambda: caplog.records)
            accepted.close()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, secret)
        router.setsockopt(zmq.LINGER, 0)
        until(lambda: binds(router, port), "the port")
        watch(connection, lambda: connection.is_open)
        router.close()
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert "what listens there is no gateway, or that of another daemon than this address is for" in said


def binds(router: "zmq.Socket[bytes]", port: int) -> bool:
    with contextlib.suppress(zmq.ZMQError):
        router.bind(f"tcp://127.0.0.1:{port}")
        return True
    return False


def test_place_that_is_taken_is_named(served: Served) -> None:
    address = Address(served.url, "", bytes(32), bytes(32))
    engine = JoinedEngine(load(None, []), "glow", address, "two", listen=served.url)
    engine.use(LoadedVoice(served.vocoder, ipc.Ready("glow", INFO, 7)))
    with pytest.raises(CannotStart, match=f"--listen: cannot listen on {served.url}: Address already in use"):
        engine.run()


def test_gateway_keeps_an_engine_that_another_one_dials(listening: Served) -> None:
    first, route = listening.router, listening._route
    second = listening.gateway(dials=True)
    try:
        listening.router = second
        assert listening.expect(engine_link.Taken).by == "the daemon host:/run/glowd at 127.0.0.1"
        again_s = time.monotonic()
        listening.expect(engine_link.Taken)
        assert time.monotonic() - again_s > 0.5, "it is told at a slow pace"
        listening.router, listening._route = first, route
        for _ in range(5):
            assert probe(listening).t_sent_ns, "and is not disturbed"
    finally:
        second.close(0)


def test_gateway_that_waits_gets_the_engine_when_it_is_free(listening: Served) -> None:
    first, second = listening.router, listening.gateway(dials=True)
    listening.router = second
    listening.expect(engine_link.Taken)
    first.close(0)
    began_s = time.monotonic()
    listening.join()
    assert time.monotonic() - began_s < 5
    assert probe(listening).t_sent_ns


def test_messages_that_cannot_be_read_are_told_of_once(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        served.router.send_multipart([served._route, b"\x81\xa4type\xa5error"])
    probe(served)
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "server.engines" in text
