"""glowd under a service manager: what it is told at start-up, while audio moves, when it does not, and at the end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from glowd.daemon import wire
from tests.harness.daemon import running_daemon
from tests.harness.mels import speech
from tests.harness.notify import NotifySocket

LIGHT = ("voices={rtisi={engine='rtisi-la'}}", "speaker.enabled=false", "log.level=warning")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    found = NotifySocket(tmp_path / "notify")
    yield found
    found.close()


def test_start_and_stop_are_told_in_order(manager: NotifySocket) -> None:
    with running_daemon(*LIGHT, env=manager.env):
        ready = manager.expect("READY", "1")
        assert ready["STATUS"].startswith("ready; voices rtisi (rtisi-la); default rtisi")
        before = manager.seen[:-1]
        assert {"EXTEND_TIMEOUT_USEC": "15000000"} in before and all("WATCHDOG" not in one for one in before[:1])
        assert any(one.get("STATUS") == "starting; engine:rtisi loading" for one in before)
        manager.expect("WATCHDOG", "1")
    told = [*manager.seen, *manager.drain()]
    assert [one["STATUS"].split(";")[0] for one in told if {"READY", "STOPPING"} & set(one)] == ["ready", "stopping"]


def test_pings_stop_while_an_engine_hangs_with_work(manager: NotifySocket) -> None:
    with running_daemon(*LIGHT, env=manager.env) as daemon, daemon.client() as client:
        manager.expect("READY", "1")
        pid, stream = daemon.role_pids()["engine rtisi"], client.open(sinks=["null"])
        os.kill(pid, signal.SIGSTOP)
        try:
            manager.drain()
            for _ in range(7):  # it hangs, but there is nothing to do
                manager.expect("WATCHDOG", "1")
            stream.send(speech()[:100])
            assert "engine rtisi has made no audio for" in manager.expect("STATUS")["STATUS"]
            assert "frames of 1 stream wait" in client.status().info["stall"]
            with pytest.raises(TimeoutError):
                manager.expect("WATCHDOG", timeout_s=4)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert stream.wait_played() == wire.Played(stream.name, 0, 100 * 256)
        manager.expect("WATCHDOG", "1")
        assert manager.seen[-2]["STATUS"].startswith("ready; voices rtisi")
