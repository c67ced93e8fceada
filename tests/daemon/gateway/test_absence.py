"""A gateway that did not run for a while, wherever in its loop it was, holds that against none of its peers."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from glowd.daemon import wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.clock import GatewayClock
from glowd.daemon.gateway.process import Gateway
from glowd.daemon.runtime.role import Role
from tests.fakes.roles import FakeEngine, FakeSpeaker
from tests.harness.waiting import until

ABSENCE_NS = 200_000_000_000
"""Longer than any silence that is allowed."""


class Time:
    """The monotonic clock, which the test moves on."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def jumps(self) -> None:
        self.ahead_ns += ABSENCE_NS


class Running:
    """A gateway whose passes the test makes, with an engine, a speaker and two clients that then fall silent."""

    def __init__(self, run_dir: Path) -> None:
        settings = ["voices={glow={engine='waveglow'}}", f"files.directory={run_dir}"]
        self.time = Time()
        role = Role("gateway", load(None, settings), run_dir, "")
        self.gateway = Gateway(role, lambda excuse: GatewayClock(excuse, self.time))
        self.roles = FakeEngine(run_dir), FakeSpeaker(run_dir)
        self.clients = [self._client(f"ipc://{run_dir}/glowd.ipc", name) for name in ("one", "two")]
        self.steps_until(lambda: len(self.gateway.router.clients) == 2 and self.all_alive, "all have come")

    def _client(self, endpoint: str, name: str) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(endpoint)
        socket.send_multipart(wire.encode(wire.Hello(name)))
        return socket

    def steps_until(self, true: Callable[[], object], what: str) -> None:
        def asked() -> object:
            self.gateway.step()
            return true()

        until(asked, what, every_s=0)

    @property
    def all_alive(self) -> bool:
        roles = self.gateway.snapshots.take().roles.values()
        return len(roles) == 3 and all(role.alive for role in roles)

    def silence(self) -> None:
        for role in self.roles:
            role.hung.set()

    def stop_before(self, monkeypatch: pytest.MonkeyPatch, part: Any, name: str) -> None:
        """The process is stopped, once, when it calls `part.name`."""
        call = getattr(part, name)

        def stopped(*given: Any) -> Any:
            monkeypatch.setattr(part, name, call)
            self.time.jumps()
            return call(*given)

        monkeypatch.setattr(part, name, stopped)

    def close(self) -> None:
        for role in self.roles:
            role.crash()
        for client in self.clients:
            client.close()
        self.gateway.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def parts(gateway: Gateway) -> dict[str, tuple[Any, str]]:
    return {
        "a message of a client": (gateway.router, "handle"),
        "a message of the engine": (gateway.engines["glow"], "handle"),
        "a message of the speaker": (gateway.speaker, "handle"),
        "the clients' tick": (gateway.router, "tick"),
        "the speaker's tick": (gateway.speaker, "tick"),
        "a look at the streams": (gateway.streams, "counts"),
    }


@pytest.mark.parametrize(
    "where",
    ["a message of a client", "a message of the engine", "a message of the speaker", "the clients' tick",
     "the speaker's tick", "a look at the streams"],
)  # fmt: skip
def test_stop_within_a_pass_is_held_against_nobody(
    running: Running, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    running.stop_before(monkeypatch, *parts(running.gateway)[where])
    running.clients[0].send_multipart(wire.encode(wire.Status()))
    running.steps_until(lambda: running.time.ahead_ns, "the stop")
    running.silence()
    for _ in range(5):
        running.gateway.step()
    assert running.all_alive
    assert len(running.gateway.router.clients) == 2


def test_gateway_that_runs_finds_silent_peers(running: Running) -> None:
    running.silence()
    for _ in range(300):
        running.time.ahead_ns += 250_000_000
        running.gateway.step()
    assert not running.all_alive
    assert len(running.gateway.router.clients) == 0


def test_clock_excuses_before_it_says_the_time() -> None:
    now_ns, excused = [1_000_000_000], list[int]()
    clock = GatewayClock(excused.append, lambda: now_ns[0])
    now_ns[0] += 400_000_000
    assert clock.now_ns() == now_ns[0] and excused == []
    now_ns[0] += 3_000_000_000
    assert clock.now_ns() == now_ns[0] and excused == [2_500_000_000]
