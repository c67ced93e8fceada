"""What the service manager is told, over a real socket."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM
from socket import socket as Socket

import pytest

from glowd.daemon.runtime.service_manager import ServiceManager
from glowd.daemon.runtime.status import AWAY, LOADING, READY, RoleState
from tests.harness.notify import NotifySocket


@pytest.fixture(params=["path", "abstract"])
def socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    found = NotifySocket(tmp_path / "notify" if request.param == "path" else f"@glowd-test-{os.getpid()}")
    yield found
    found.close()


@pytest.fixture
def manager(socket: NotifySocket, monkeypatch: pytest.MonkeyPatch) -> ServiceManager:
    for name, value in socket.env.items():
        monkeypatch.setenv(name, value)
    return ServiceManager.from_environment()


def test_variables_are_not_left_to_the_roles(manager: ServiceManager) -> None:
    assert [name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))] == []


def test_each_phase_sends_its_variables(manager: ServiceManager, socket: NotifySocket) -> None:
    manager.tick()
    manager.ready("voices glow")
    manager.tick()
    manager.reloading()
    manager.tick()
    manager.ready("voices glow, x")
    manager.stopping()
    manager.tick()
    extend = {"EXTEND_TIMEOUT_USEC": "15000000"}
    found = socket.drain()
    assert int(found[2].pop("MONOTONIC_USEC")) > 0
    assert found == [
        extend,
        {"READY": "1", "STATUS": "ready; voices glow"},
        {"RELOADING": "1", "STATUS": "reloading"},
        extend,
        {"READY": "1", "STATUS": "ready; voices glow, x"},
        {"STOPPING": "1", "STATUS": "stopping"},
        extend,
    ]


def test_pulse_is_a_ping_unless_audio_stands_still(
    manager: ServiceManager, socket: NotifySocket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manager.ready("voices glow")
    manager.pulse("")
    manager.pulse("engine glow has made no audio for 6 s")
    manager.pulse("engine glow has made no audio for 6 s")
    manager.pulse("")
    assert socket.drain()[1:] == [
        {"WATCHDOG": "1"},
        {"STATUS": "ready; engine glow has made no audio for 6 s"},
        {"STATUS": "ready; voices glow"},
        {"WATCHDOG": "1"},
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "engine glow has made no audio for 6 s",
        "audio moves again",
    ]


def test_status_names_the_roles_that_are_not_ready(manager: ServiceManager, socket: NotifySocket) -> None:
    manager.changed(RoleState("gateway", LOADING))
    manager.changed(RoleState("gateway", READY))
    manager.ready("voices glow")
    manager.changed(RoleState("engine:glow", AWAY, "no memory"))
    manager.forget("engine:glow")
    assert [message["STATUS"] for message in socket.drain()] == [
        "starting; gateway loading",
        "starting",
        "ready; voices glow",
        "ready; engine:glow away: no memory",
        "ready; voices glow",
    ]


def test_status_is_sent_only_when_it_changes(manager: ServiceManager, socket: NotifySocket) -> None:
    for _ in range(3):
        manager.changed(RoleState("gateway", LOADING))
    assert len(socket.drain()) == 1


def test_manager_that_is_gone_is_no_error(manager: ServiceManager, socket: NotifySocket) -> None:
    socket.close()
    manager.ready("voices glow")
    manager.stopping()


def test_manager_that_does_not_read_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Socket(AF_UNIX, SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "deaf"))
        manager = ServiceManager.from_environment()
        with Timer() as pings:
            for _ in range(1000):
                manager.pulse("")
        with Timer() as phase:
            manager.stopping()
    assert pings.seconds < 1 and phase.seconds < 30


class Timer:
    """How long the block took."""

    def __enter__(self) -> "Timer":
        self._began_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began_s


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    manager = ServiceManager.from_environment()
    manager.ready("voices glow")
    manager.pulse("")


def test_watchdog_shorter_than_the_reports_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    ServiceManager.from_environment()
    assert "WatchdogSec is 2 s; glowd reports once a second: use 60" in caplog.text
