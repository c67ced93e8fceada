"""An engine at a gateway that the test plays: it answers probes, and says how long they may have lain unread."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
import zmq

from glowd.daemon import engine_link, ipc
from glowd.daemon.config_reader import load
from glowd.daemon.engine.joined import JoinedEngine, LoadedVoice
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.flow.mel import Floats
from glowd.flow.vocoder import Stream
from tests.daemon.link_messages import INFO
from tests.fakes.vocoder import FakeVocoder
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

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.vocoder = HeldVocoder()
        self.engine = JoinedEngine(load(None, []), "glow", Address(f"tcp://127.0.0.1:{port}", ""), "one")
        self.engine.use(LoadedVoice(self.vocoder, ipc.Ready("glow", INFO, 7)))
        self._thread = threading.Thread(target=self.engine.run)
        self._thread.start()
        self._route = b""
        join = self.expect(engine_link.Join)
        self.send(engine_link.Joined(engine_link.agreed_version(join) or 0, "glow/one"))
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
