"""The blocking client when something is wrong: rejections, errors, a daemon that is silent, gone or not there."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.clients import Client, errors
from glowd.clients.connection import Connection
from glowd.daemon import wire
from glowd.daemon.wire import Code
from tests.clients.reading import in_thread, samples_of
from tests.fakes.daemon import HOP, FakeDaemon, refuse_once
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S, Stalls


@pytest.mark.parametrize("code", [Code.GAP, Code.INTERNAL, Code.AT_CAPACITY])
def test_rejected_mel_is_sent_again(fake: FakeDaemon, code: Code) -> None:
    fake.refuse = refuse_once(2, code)
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for value in range(5):
            stream.send(mel(16, -float(value)))
        stream.end()
        heard = samples_of(stream)
    np.testing.assert_array_equal(heard * 2**20, np.arange(80 * HOP))
    accepted = {m.first_frame: m.payload[0, 0] for m in fake.of_type(wire.Mel)}
    assert [accepted[first] for first in range(0, 80, 16)] == [0, -1, -2, -3, -4]


def test_mel_over_credit_is_sent_again_with_credit(fake: FakeDaemon) -> None:
    fake.refuse = refuse_once(1, Code.OVER_CREDIT)
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        sender = in_thread(lambda: stream.send(mel(8)))
        fake.wait_for(lambda: len(fake.of_type(wire.Mel)) == 1)
        sender.join(WAIT_S)
        fake.wait_for(lambda: stream.credit_frames == 0)  # the rejection has arrived
        glow.ping()  # whatever was sent before it has arrived
        assert len(fake.of_type(wire.Mel)) == 1
        fake.send("s", wire.Credit("s", 0, 8))
        fake.wait_for(lambda: fake.streams["s"].frames == 8)


def test_rejected_content_raises_and_the_stream_continues(fake: FakeDaemon) -> None:
    fake.refuse = refuse_once(2, Code.OUT_OF_RANGE)
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(8))
        with pytest.raises(errors.MelError, match="303 OUT_OF_RANGE") as caught:
            stream.send(mel(8))
            stream.wait_played(WAIT_S)
        assert caught.value.expected_frame == 8 and caught.value.code == 303
        stream.send(mel(3))
        played = stream.wait_played()
    assert isinstance(played, wire.Played) and played.total_samples == 11 * HOP


def test_no_daemon_raises_with_the_start_command(socket_dir: Path) -> None:
    with Stalls() as stalls:
        began_s = time.monotonic()
        with pytest.raises(errors.NotRunning, match="start one with: glowd"):
            Client(f"ipc://{socket_dir}/none.ipc", timeout_s=0.2)
        took_s = time.monotonic() - began_s
    assert took_s < 1.5 + stalls.lost_s


@pytest.mark.parametrize("endpoint", ["ftp://x", "nonsense", "tcp://127.0.0.1:notaport"])
def test_bad_endpoint_raises(endpoint: str) -> None:
    with pytest.raises(errors.GlowdError, match="cannot connect"):
        Client(endpoint, timeout_s=2)


def test_dead_daemon_fails_all_waiting_calls(socket_dir: Path) -> None:
    fake = FakeDaemon(socket_dir, auto=False)
    with Client(fake.endpoint, reconnect_s=0) as glow:
        stream = glow.open("s", sinks=["socket"])
        stream.send(mel(64))
        threading.Timer(0.1, fake.stop).start()
        with pytest.raises(errors.DaemonGone, match="closed the connection"):
            stream.send(mel(64), timeout_s=WAIT_S)
        with pytest.raises(errors.DaemonGone):
            glow.open("t")
        stream.close()


def test_unanswered_call_times_out(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        fake.answers, glow.timeout_s = False, 0.2
        with pytest.raises(errors.WaitTimeout):
            glow.status()
        fake.answers = True


def test_stream_opened_too_late_is_closed(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        fake.answers, glow.timeout_s = False, 0.2
        with pytest.raises(errors.WaitTimeout):
            glow.open("s", sinks=["null"])
        fake.wait_for(lambda: fake.received[-1] == wire.Close("s"))
        fake.answers, glow.timeout_s = True, WAIT_S
        glow.open("s", sinks=["null"]).close()


def test_silent_daemon_raises_gone(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "PING_EVERY_S", 0.02)
    with Client(fake.endpoint, reconnect_s=0) as glow:
        fake.answers = False
        fake.wait_for(lambda: fake.pings > 2)
        monkeypatch.setattr(Connection, "SILENCE_S", 0.1)
        with pytest.raises(errors.DaemonGone, match="has sent nothing"):
            glow.run(glow._connection.questions.status(), WAIT_S)


def test_refused_stream_raises_the_reason(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        with pytest.raises(errors.Refused, match="no voice bass; there is: glow") as caught:
            glow.open(voice="bass")
        assert caught.value.code == Code.UNKNOWN_VOICE
        glow.open(sinks=["null"]).close()


def test_fatal_error_ends_only_the_utterance(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        fake.wait_for(lambda: fake.streams["s"].frames == 5)
        fake.streams["s"] = type(fake.streams["s"])(fake.streams["s"].request, 64, generation=1)
        fake.send("s", wire.Error(501, "ENGINE_LOST", "the engine died", "s", 0, True))
        fake.send("s", wire.Credit("s", 1, 64))
        with pytest.raises(errors.DaemonError, match="the engine died"):
            stream.wait_played(WAIT_S)
        stream.send(mel(5))
        played = stream.wait_played(WAIT_S)
        assert isinstance(played, wire.Played) and played.generation == 1


def test_late_rejections_after_an_ending_are_ignored(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        stream.wait_played(WAIT_S)
        fake.send("s", wire.Error(205, "WRONG_GENERATION", "0 is not the running one", "s", 1, False, 0))
        fake.send("s", wire.Error(204, "GAP", "late", "s", 0, False, 5))
        glow.status()
        stream.send(mel(5))
        played = stream.wait_played(WAIT_S)
        assert isinstance(played, wire.Played) and played.generation == 1


def test_fatal_error_is_raised_once(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        fake.send("s", wire.Error(501, "ENGINE_LOST", "the engine died", "s", 0, True))
        fake.wait_for(lambda: stream.generation == 1)
        with pytest.raises(errors.DaemonError, match="the engine died"):
            stream.send(mel(5))
        assert stream.flush() == wire.Flushed("s", 1, -1, 0)


def test_session_error_fails_the_client(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, reconnect_s=0) as glow:
        glow.open("s", sinks=["null"])
        fake.send("s", wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
        with pytest.raises(errors.DaemonError, match="stopping"):
            for _ in range(100):
                glow.status()


def test_unreadable_message_is_skipped(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
        fake.send_raw("s", [b"\xc1"])
        fake.send("s", wire.State("s", "playing", {}))
        assert glow.status().state == "ready"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((3, 79)), r"\[frames, 80\]"),
        (np.zeros((2, 3, 80)), r"\[2, 3, 80\]"),
        (np.full((2, 80), np.nan), "value nan at frame 0, bin 0; expected finite"),
        (np.full((2, 80), 21.0), r"-20\.\.20"),
    ],
)
def test_wrong_mel_raises_before_it_is_sent(fake: FakeDaemon, wrong: Any, words: str) -> None:
    refused = pytest.raises(ValueError, match=words)
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream, refused:
        stream.send(wrong)
    assert not fake.of_type(wire.Mel)


def test_too_long_utterance_raises_at_once(fake: FakeDaemon) -> None:
    fake.limits["max_utterance_s"] = 1
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(80))
        with pytest.raises(errors.Refused, match="87 frames; at most 86 frames") as caught:
            stream.send(mel(7))
        assert caught.value.code == Code.TOO_LONG
        stream.send(mel(6))


def test_changed_array_does_not_change_sent_frames(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        values = mel(10)
        stream.send(values)
        values[:] = 99
        fake.wait_for(lambda: fake.streams["s"].frames == 10)
        fake.streams["s"].seq = fake.streams["s"].frames = 0
        fake.send("s", wire.Error(204, "GAP", "again", "s", 0, False, 0))
        fake.wait_for(lambda: len(fake.of_type(wire.Mel)) == 2)
    assert fake.of_type(wire.Mel)[1].payload[0, 0] == -4
