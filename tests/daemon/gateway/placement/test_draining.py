"""A daemon that is drained takes no new streams, and its clients leave it between two utterances."""

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.placement.draining import PLACEMENTS
from glowd.daemon.wire import Code
from tests.harness.router import HOP, RouterHarness, mel_message


@pytest.fixture
def harness() -> RouterHarness:
    found = RouterHarness()
    found.connect(b"admin", b"a", b"b")
    return found


def placed(harness: RouterHarness, action: str) -> wire.State:
    (state,) = harness.send(b"admin", wire.Engine(wire.WHOLE_DAEMON, action))
    assert isinstance(state, wire.State)
    return state


def is_told_to_leave(harness: RouterHarness, who: bytes) -> bool:
    return any(error.fatal and not error.stream for error in harness.received(who, wire.Error))


def speak(harness: RouterHarness, who: bytes, stream: str) -> None:
    harness.open(who, stream, "socket")
    harness.send(who, mel_message(stream))


def finish(harness: RouterHarness, who: bytes, stream: str) -> None:
    """The utterance of four frames is rendered, sent and ended."""
    harness.send(who, wire.End(stream, 0, 4))
    session = harness.session(stream)
    audio = np.zeros(4 * HOP, np.float32)
    pcm = ipc.Pcm(session.state.utterance.key, 0, len(audio), last=True, frames_done=4, audio=audio)
    session.engine.pcm(pcm, harness.now_ns)


@pytest.mark.parametrize("action", ["cordon", "drain"])
def test_new_streams_are_refused_until_it_is_undone(harness: RouterHarness, action: str) -> None:
    assert placed(harness, action).state == PLACEMENTS[action]
    error = harness.refused(b"a", wire.Open("s", sinks=["null"]), fatal=True)
    assert (error.code, error.stream) == (Code.STOPPING, "s")
    assert error.text == (
        f"the daemon is {PLACEMENTS[action]}, and takes no new streams; use another one, or: glowctl uncordon"
    )
    assert placed(harness, "uncordon").state != PLACEMENTS[action]
    harness.open(b"a", "s")


def test_cordoned_daemon_keeps_its_clients(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    placed(harness, "cordon")
    harness.tick(2.0)
    assert harness.stream_names == {"s"} and not is_told_to_leave(harness, b"a")


def test_idle_client_leaves_and_one_without_streams_stays(harness: RouterHarness) -> None:
    harness.open(b"a", "s")
    placed(harness, "drain")
    harness.tick(1.0)
    harness.tick()
    assert is_told_to_leave(harness, b"a") and harness.clients == {b"admin", b"b"} and not harness.stream_names


def test_client_that_speaks_leaves_after_its_utterance(harness: RouterHarness) -> None:
    speak(harness, b"a", "s")
    placed(harness, "drain")
    harness.tick(2.0)
    assert harness.stream_names == {"s"} and not is_told_to_leave(harness, b"a")
    finish(harness, b"a", "s")
    mail = [type(one) for one in harness.mail[b"a"]]
    assert mail.index(wire.Played) < len(mail) - 1 - mail[::-1].index(wire.Error)
    assert mail[-1] is wire.Error, "no credit for another utterance follows"
    harness.tick()
    assert not harness.stream_names


def test_client_waits_for_the_last_of_its_streams(harness: RouterHarness) -> None:
    for stream in ("first", "second"):
        speak(harness, b"a", stream)
    placed(harness, "drain")
    finish(harness, b"a", "first")
    assert not is_told_to_leave(harness, b"a")
    finish(harness, b"a", "second")
    assert is_told_to_leave(harness, b"a")
