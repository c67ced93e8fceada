"""The daemon refuses streams beyond its measured capacity; without processor time it degrades, and recovers later."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from glowd.clients import Client, errors
from glowd.daemon import wire
from glowd.daemon.wire import Code
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import send_all
from tests.harness.waiting import WAIT_S, until

MEL = speech()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    voices = 'voices={glow={engine="waveglow"}}'
    with running_daemon("speaker.enabled=false", "server.max_streams=200", voices) as running:
        yield running


def voice(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.status().info["voices"]["glow"]
    return found


def wait_until(
    client: Client, what: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = WAIT_S
) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_so() -> bool:
        found.clear()
        found.update(voice(client))
        return holds(found)

    until(is_so, what, timeout_s, every_s=0.1)
    return found


def test_measured_capacity_is_reported_and_enforced(daemon: Daemon) -> None:
    with daemon.client() as glow:
        told = voice(glow)["capacity"]
        assert told == glow.welcome.voices[0]["capacity"]
        most = told["streams"]
        assert told["measured"] and most >= 1 and told["chunk_ms"] == pytest.approx(46.44, abs=0.01)
        with contextlib.ExitStack() as stack:
            for _ in range(most):
                stack.enter_context(contextlib.closing(glow.open(sinks=["null"])))
            with pytest.raises(
                errors.Refused, match=rf"{most} of {most} streams are open.*close one, try again"
            ) as caught:
                glow.open(sinks=["null"])
            assert caught.value.code == Code.AT_CAPACITY
            assert (voice(glow)["open"], voice(glow)["max_streams"]) == (most, most)
        with contextlib.closing(glow.open(sinks=["null"])):
            wait_until(glow, "one stream", lambda found: found["open"] == 1)


@contextlib.contextmanager
def stolen_time(pid: int, stop_s: float = 0.147, run_s: float = 0.003) -> Iterator[None]:
    """Stop a process for most of the time, as if the machine were busy with something else.

    It runs for 2 % of the time: one stream of the compiled voice needs up to 6 %.
    """
    over = threading.Event()

    def steal() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(stop_s)
            os.kill(pid, signal.SIGCONT)
            over.wait(run_s)

    thread = threading.Thread(target=steal)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def speak_until(client: Client, over: threading.Event, endings: list[object]) -> None:
    """Speak the sentence at real-time pace, again and again, into a null sink."""
    with client.open(sinks=["null"]) as stream:
        while not over.is_set():
            send_all(stream, MEL, [4], realtime=True)
            endings.append(stream.wait_played(WAIT_S))


def test_engine_without_time_degrades_then_recovers(daemon: Daemon) -> None:
    over, endings, levels = threading.Event(), list[object](), list[int]()

    def seen(found: dict[str, Any]) -> dict[str, Any]:
        if found["level"] is not None and found["level"] not in levels[-1:]:
            levels.append(found["level"])
        return found

    with daemon.client("speaker") as talking, daemon.client("watcher") as glow:
        thread = threading.Thread(target=speak_until, args=(talking, over, endings))
        thread.start()
        try:
            wait_until(glow, "speaking", lambda found: found["level"] == 0 and found["streams"] == 1)
            with stolen_time(daemon.role_pids()["engine glow"]):
                found = wait_until(
                    glow, "refusing", lambda found: bool((seen(found)["degraded"] or {}).get("refuses")), 3 * WAIT_S
                )
                assert levels[-3:] == [1, 2, 3] and glow.status().state == "degraded"
                assert found["degraded"]["chunk_frames"] == 16 and "were late" in found["degraded"]["reason"]
                wait_until(glow, "robbed", lambda found: (found["stolen"] or 0) > 0.5)
                with pytest.raises(errors.Refused, match="overloaded and takes no new streams now"):
                    glow.open(sinks=["null"])
            wait_until(glow, "recovered", lambda found: seen(found)["level"] == 0, 5 * WAIT_S)
            assert levels[-2:] == [1, 0] and all(abs(b - a) == 1 for a, b in pairwise(levels)), levels
            assert glow.status().state == "ready"
            with contextlib.closing(glow.open(sinks=["null"])):
                pass
        finally:
            over.set()
            thread.join()
    assert endings and all(isinstance(ending, wire.Played) for ending in endings)
    assert {ending.total_samples for ending in endings if isinstance(ending, wire.Played)} == {len(MEL) * 256}
