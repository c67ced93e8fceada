"""A gateway in the process of the test, which makes its passes and its time; engine and speaker are fakes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from glowd.daemon import wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.clock import GatewayClock
from glowd.daemon.gateway.process import Gateway
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.runtime.role import Role
from glowd.daemon.wire.fields import Message
from tests.fakes.roles import FakeEngine, FakeSpeaker
from tests.harness.waiting import until

M = TypeVar("M", bound=Message)


class Time:
    """The monotonic clock, which the test moves on."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead_ns


class OwnClient:
    """A client of it, and what it has received."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.received: list[Message] = []
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)
        self.send(wire.Hello(name, max_version=wire.VERSION))

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.socket.send_multipart(wire.encode(message))

    def read(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self.received.append(wire.decode(self.socket.recv_multipart(zmq.NOBLOCK), wire.CLIENT_LIMITS))

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]


class OwnGateway:
    """A gateway with an engine, a speaker and two clients, all of which have come."""

    def __init__(self, run_dir: Path, *settings: str) -> None:
        given = ["voices={glow={engine='waveglow'}}", f"files.directory={run_dir}", *settings]
        self.time = Time()
        role = Role("gateway", load(None, given), run_dir, "")
        self.gateway = Gateway(role, lambda excuse: GatewayClock(excuse, self.time))
        self.roles = self.engine, self.speaker = FakeEngine(run_dir), FakeSpeaker(run_dir)
        self.clients = self.one, self.two = [OwnClient(f"ipc://{run_dir}/glowd.ipc", name) for name in ("one", "two")]
        self.until(lambda: self.one.received and self.two.received and self.all_alive, "all have come")

    def until(self, true: Callable[[], object], what: str = "it") -> None:
        """Make passes until `true()`."""

        def asked() -> object:
            self.gateway.step()
            for client in self.clients:
                client.read()
            return true()

        until(asked, what, every_s=0)

    def open(self, client: OwnClient, stream: str, *sinks: str) -> None:
        client.send(wire.Open(stream, sinks=list(sinks)))
        self.until(lambda: any(one.stream == stream for one in client.all(wire.Opened)), f"{stream} is open")

    def session(self, stream: str) -> Session:
        found = self.gateway.streams.find(stream)
        assert found is not None, f"there is no stream {stream}"
        return found.session

    @property
    def all_alive(self) -> bool:
        roles = self.gateway.snapshots.take().roles.values()
        return len(roles) == 3 and all(role.alive for role in roles)

    def before(self, monkeypatch: pytest.MonkeyPatch, part: Any, name: str, action: Callable[[], object]) -> None:
        """Do something, once, when `part.name` is called."""
        call = getattr(part, name)

        def changed(*given: Any, **named: Any) -> Any:
            monkeypatch.setattr(part, name, call)
            action()
            return call(*given, **named)

        monkeypatch.setattr(part, name, changed)

    def close(self) -> None:
        for role in self.roles:
            role.crash()
        for client in self.clients:
            client.socket.close()
        self.gateway.close()


@contextlib.contextmanager
def own_gateway(run_dir: Path, *settings: str) -> Iterator[OwnGateway]:
    """An OwnGateway that is closed at the end."""
    made = OwnGateway(run_dir, *settings)
    try:
        yield made
    finally:
        made.close()
