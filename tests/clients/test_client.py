"""The blocking client against a fake daemon: credit, generations, refusals, flushes, loss, listeners."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.clients import Client, errors, transport
from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.daemon.wire import Code
from tests.clients.fake import HOP, FakeDaemon
from tests.patience import WAIT_S, Stalls, repeated_after_stalls


def mel(frames: int, value: float = -4.0) -> Any:
    return np.full((frames, 80), value, np.float32)


def in_thread(target: Any) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def samples_of(stream: Stream) -> Any:
    return np.concatenate([piece.payload for piece in stream.audio(timeout_s=WAIT_S)])


def test_the_five_line_use(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOWD_ENDPOINT", fake.endpoint)
    with Client() as glow, glow.open(sinks=["device"]) as stream:
        for chunk in (mel(40), mel(30), mel(1)[0]):
            stream.send(chunk)
    fake.wait_for(lambda: bool(fake.of_type(wire.Close)))
    assert fake.of_type(wire.End) == [wire.End(stream.name, 0, 71)]
    mels = fake.of_type(wire.Mel)
    assert sum(m.frames for m in mels) == 71 and max(m.frames for m in mels) <= 16
    assert [m.seq for m in mels] == list(range(len(mels)))
    assert all(m.t_client_ns for m in mels)


def test_audio_of_the_socket_sink_is_whole(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        stream.send(mel(70))
        stream.end()
        heard = samples_of(stream)
        played = stream.wait_played()
    np.testing.assert_array_equal(heard * 2**20, np.arange(70 * HOP))
    assert played == wire.Played(stream.name, 0, 70 * HOP, 0)


def test_sending_waits_for_credit(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(60))
        assert stream.credit_frames == 4
        sender = in_thread(lambda: stream.send(mel(20)))
        fake.wait_for(lambda: fake.streams["s"].frames == 64)
        time.sleep(0.05)
        assert sender.is_alive() and fake.streams["s"].frames == 64
        fake.streams["s"].credit_frames += 16
        fake.say("s", wire.Credit("s", 0, 16))
        sender.join(WAIT_S)
        assert not sender.is_alive()
        fake.wait_for(lambda: fake.streams["s"].frames == 80)


def test_waiting_for_credit_can_time_out(fake: FakeDaemon) -> None:
    fake.auto = False
    late = pytest.raises(errors.WaitTimeout, match=r"within 0\.1 s")
    with Client(fake.endpoint) as glow, late, glow.open(sinks=["null"]) as stream:
        stream.send(mel(100), timeout_s=0.1)
    assert fake.of_type(wire.Flush)


def test_one_stream_speaks_many_utterances(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for number in range(3):
            assert stream.generation == number
            stream.send(mel(90))
            stream.end()
            played = stream.wait_played()
            assert isinstance(played, wire.Played) and played.generation == number
    assert [m.first_frame for m in fake.of_type(wire.Mel) if m.seq == 0] == [0, 0, 0]
    assert len(fake.of_type(wire.End)) == 3


def test_the_next_utterance_waits_for_the_end_of_this_one(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["null"]) as stream:
        for _ in range(3):
            stream.send(mel(10))
            stream.end()
    assert [(m.generation, m.frames) for m in fake.of_type(wire.Mel)] == [(0, 10), (1, 10), (2, 10)]


def refuse_once(number: int, code: Code) -> Any:
    """Refuse the mel that arrives as the `number`-th."""
    seen: list[wire.Mel] = []

    def refuse(message: wire.Mel) -> wire.Error | None:
        seen.append(message)
        if len(seen) != number:
            return None
        return wire.Error(code, code.name, "no", message.stream, message.generation, False, message.first_frame)

    return refuse


@pytest.mark.parametrize("code", [Code.GAP, Code.INTERNAL, Code.AT_CAPACITY])
def test_refused_mels_are_sent_again(fake: FakeDaemon, code: Code) -> None:
    fake.refuse = refuse_once(2, code)
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for value in range(5):
            stream.send(mel(16, -float(value)))
        stream.end()
        heard = samples_of(stream)
    np.testing.assert_array_equal(heard * 2**20, np.arange(80 * HOP))
    accepted = {m.first_frame: m.payload[0, 0] for m in fake.of_type(wire.Mel)}
    assert [accepted[first] for first in range(0, 80, 16)] == [0, -1, -2, -3, -4]


def test_a_mel_over_credit_waits_for_credit_and_is_sent_again(fake: FakeDaemon) -> None:
    fake.refuse = refuse_once(1, Code.OVER_CREDIT)
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        sender = in_thread(lambda: stream.send(mel(8)))
        fake.wait_for(lambda: len(fake.of_type(wire.Mel)) == 1)
        sender.join(WAIT_S)
        fake.wait_for(lambda: stream.credit_frames == 0)  # it was told of the refusal
        time.sleep(0.05)
        assert len(fake.of_type(wire.Mel)) == 1
        fake.say("s", wire.Credit("s", 0, 8))
        fake.wait_for(lambda: fake.streams["s"].frames == 8)


def test_a_refused_content_is_raised_and_the_stream_goes_on(fake: FakeDaemon) -> None:
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


def test_flush_tells_what_was_heard_and_the_stream_goes_on(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["socket"]) as stream:
        stream.send(mel(20))
        assert stream.flush(30) == wire.Flushed("s", 0, 99, 1000)
        assert fake.of_type(wire.Flush) == [wire.Flush("s", 0, 30)]
        stream.send(mel(2))
        stream.end()
        heard = samples_of(stream)
    assert len(heard) == 2 * HOP, "audio of the flushed utterance is not heard afterwards"


def test_a_flush_by_another_client_is_told_to_the_sender(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other, other.listen("s") as listener:
        stream = speaker.open("s", sinks=["null"])
        stream.send(mel(5))
        fake.wait_for(lambda: fake.streams["s"].frames == 5)
        listener.flush(0)
        with pytest.raises(errors.Interrupted, match="flushed by another client"):
            while True:
                stream.send(mel(1))
    assert {m.generation for m in fake.of_type(wire.Mel)} == {0}


def test_audio_can_be_read_after_the_utterance_has_ended(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for frames in (5, 6, 7):
            stream.send(mel(frames))
            stream.wait_played(WAIT_S)
            if frames != 6:  # nobody reads the second: it is not in the way of the third
                assert len(samples_of(stream)) == frames * HOP


def test_flushing_nothing_is_no_message(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        assert stream.flush() == wire.Flushed("s", 0, -1, 0)
    assert not fake.of_type(wire.Flush) and not fake.of_type(wire.End)


def test_a_flush_interrupts_a_blocked_send(fake: FakeDaemon) -> None:
    fake.auto = False
    failures: list[Exception] = []

    def speak() -> None:
        try:
            stream.send(mel(100))
        except errors.GlowdError as error:
            failures.append(error)

    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        sender = in_thread(speak)
        fake.wait_for(lambda: fake.streams["s"].frames == 64)
        stream.flush()
        sender.join(WAIT_S)
        assert [type(error) for error in failures] == [errors.Interrupted]
        assert sum(m.frames for m in fake.of_type(wire.Mel)) == 64


def test_an_exception_in_the_block_flushes(fake: FakeDaemon) -> None:
    broken = pytest.raises(RuntimeError, match="tts broke")
    with Client(fake.endpoint) as glow, broken, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        raise RuntimeError("tts broke")
    fake.wait_for(lambda: not fake.streams)
    assert fake.of_type(wire.Flush) and not fake.of_type(wire.End)


def test_controls_are_sent(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"], seed=3, voice="glow") as stream:
        stream.pause()
        stream.gain(-6.0)
        stream.resume()
    fake.wait_for(lambda: fake.received[-1] == wire.Bye())
    assert fake.received[2:5] == [wire.Pause("s"), wire.Gain("s", -6.0), wire.Resume("s")]
    assert fake.received[1].seed == 3  # type: ignore[attr-defined]


def test_several_streams_and_threads_share_a_client(fake: FakeDaemon) -> None:
    heard: dict[str, int] = {}

    def speak(name: str) -> None:
        with glow.open(name, sinks=["socket"]) as stream:
            stream.send(mel(100))
            stream.end()
            heard[name] = len(samples_of(stream))

    with Client(fake.endpoint) as glow:
        threads = [in_thread(lambda name=f"s{number}": speak(name)) for number in range(4)]
        for thread in threads:
            thread.join(WAIT_S)
    assert heard == {f"s{number}": 100 * HOP for number in range(4)}


def test_leaving_closes_the_streams_and_says_bye(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
    fake.wait_for(lambda: fake.received[-1] == wire.Bye())
    assert fake.received[-2] == wire.Close("s")


def test_names_are_chosen_apart(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, name="tts") as glow:
        first, second = glow.open(sinks=["null"]), glow.open(sinks=["null"])
        assert first.name != second.name and first.name.startswith("tts-")
        with pytest.raises(errors.StreamError, match="choose another name"):
            glow.open(first.name)


def test_status_and_ping(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        assert glow.status() == wire.State("", "ready", {"streams": 0})
        assert 0 < glow.ping() < 1_000_000_000


def test_no_daemon_is_said_with_the_command_that_starts_one(socket_dir: Path) -> None:
    with Stalls() as stalls:
        began_s = time.monotonic()
        with pytest.raises(errors.NotRunning, match=r"start one with: glowd --config config.toml"):
            Client(f"ipc://{socket_dir}/none.ipc", timeout_s=0.2)
        took_s = time.monotonic() - began_s
    assert took_s < 1.5 + stalls.lost_s


@pytest.mark.parametrize("endpoint", ["ftp://x", "nonsense", "tcp://127.0.0.1:notaport"])
def test_a_bad_endpoint_is_said_at_once(endpoint: str) -> None:
    with pytest.raises(errors.GlowdError, match="cannot connect"):
        Client(endpoint, timeout_s=2)


def test_a_daemon_that_dies_fails_everything_that_waits(socket_dir: Path) -> None:
    fake = FakeDaemon(socket_dir, auto=False)
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["socket"])
        stream.send(mel(64))
        threading.Timer(0.1, fake.stop).start()
        with pytest.raises(errors.DaemonGone, match="closed the connection"):
            stream.send(mel(64), timeout_s=WAIT_S)
        with pytest.raises(errors.DaemonGone):
            glow.open("t")
        stream.close()


def test_a_silent_daemon_times_out(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        fake.answers, glow.timeout_s = False, 0.2
        with pytest.raises(errors.WaitTimeout):
            glow.status()
        fake.answers = True


def test_a_stream_that_opens_too_late_is_given_back(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        fake.answers, glow.timeout_s = False, 0.2
        with pytest.raises(errors.WaitTimeout):
            glow.open("s", sinks=["null"])
        fake.wait_for(lambda: fake.received[-1] == wire.Close("s"))
        fake.answers, glow.timeout_s = True, WAIT_S
        glow.open("s", sinks=["null"]).close()


def test_the_heartbeat_goes_on_after_a_session_error(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_EVERY_S", 0.02)
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
        fake.wait_for(lambda: fake.pings > 0)
        fake.say("s", wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
        time.sleep(0.1)
        with pytest.raises(errors.DaemonError, match="stopping"):
            glow.ping()


@repeated_after_stalls
def test_a_daemon_that_hangs_is_gone_after_a_while(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(transport, "SILENCE_S", 0.2)
    with Client(fake.endpoint) as glow:
        stream = glow.open("s", sinks=["null"])
        time.sleep(0.5)
        stream.send(mel(5))  # pongs have kept it alive
        stream.wait_played(WAIT_S)
        fake.answers = False
        with pytest.raises(errors.DaemonGone, match="has said nothing"):
            glow.run(glow._connection.status(), WAIT_S)


def test_a_refused_stream_is_raised_with_the_reason(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        with pytest.raises(errors.Refused, match="no voice bass; there is: glow") as caught:
            glow.open(voice="bass")
        assert caught.value.code == Code.UNKNOWN_VOICE
        glow.open(sinks=["null"]).close()


def test_a_fatal_error_ends_the_utterance_only(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        fake.wait_for(lambda: fake.streams["s"].frames == 5)
        fake.streams["s"] = type(fake.streams["s"])(fake.streams["s"].request, 64, generation=1)
        fake.say("s", wire.Error(501, "ENGINE_LOST", "the engine died", "s", 0, True))
        fake.say("s", wire.Credit("s", 1, 64))
        with pytest.raises(errors.DaemonError, match="the engine died"):
            stream.wait_played(WAIT_S)
        stream.send(mel(5))
        played = stream.wait_played(WAIT_S)
        assert isinstance(played, wire.Played) and played.generation == 1


def test_answers_to_what_crossed_an_ending_are_no_errors(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        stream.wait_played(WAIT_S)
        fake.say("s", wire.Error(205, "WRONG_GENERATION", "0 is not the running one", "s", 1, False, 0))
        fake.say("s", wire.Error(204, "GAP", "late", "s", 0, False, 5))
        glow.status()
        stream.send(mel(5))
        played = stream.wait_played(WAIT_S)
        assert isinstance(played, wire.Played) and played.generation == 1


def test_a_fatal_error_is_raised_once(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        fake.say("s", wire.Error(501, "ENGINE_LOST", "the engine died", "s", 0, True))
        fake.wait_for(lambda: stream.generation == 1)
        with pytest.raises(errors.DaemonError, match="the engine died"):
            stream.send(mel(5))
        assert stream.flush() == wire.Flushed("s", 1, -1, 0)


def test_a_session_error_fails_the_client(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
        fake.say("s", wire.Error(503, "STOPPING", "the daemon is stopping", fatal=True))
        with pytest.raises(errors.DaemonError, match="stopping"):
            for _ in range(100):
                glow.status()


def test_unreadable_messages_are_skipped(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
        fake.say_raw("s", [b"\xc1"])
        fake.say("s", wire.State("s", "playing", {}))
        assert glow.status().state == "ready"


def test_listeners_hear_other_clients(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other, other.listen("*") as listener:
        fake.wait_for(lambda: bool(fake.listeners))
        with speaker.open("s", sinks=["null"]) as stream:
            stream.send(mel(20))
        pieces = []
        for piece in listener.audio(timeout_s=WAIT_S):
            pieces.append(piece)
            if piece.last:
                break
    assert sum(piece.samples for piece in pieces) == 20 * HOP
    fake.wait_for(lambda: bool(fake.of_type(wire.Unlisten)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((80, 7)), "transpose it"),
        (np.zeros((3, 79)), r"\[frames, 80\]"),
        (np.zeros((1, 2, 80)), r"\[1, 2, 80\]"),
        (np.full((2, 80), np.nan), "finite"),
        (np.full((2, 80), 21.0), "-20..20"),
    ],
)
def test_wrong_mels_are_refused_before_they_are_sent(fake: FakeDaemon, wrong: Any, words: str) -> None:
    refused = pytest.raises(ValueError, match=words)
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream, refused:
        stream.send(wrong)
    assert not fake.of_type(wire.Mel)


def test_more_than_an_utterance_may_have_is_refused_at_once(fake: FakeDaemon) -> None:
    fake.limits["max_utterance_s"] = 1
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(80))
        with pytest.raises(errors.Refused, match="86 frames") as caught:
            stream.send(mel(7))
        assert caught.value.code == Code.TOO_LONG
        stream.send(mel(6))


def test_a_listener_may_flush_a_stream_of_another_client(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other:
        stream = speaker.open("s", sinks=["null"])
        stream.send(mel(5))
        with other.listen("s") as listener:
            fake.wait_for(lambda: bool(fake.listeners))
            assert listener.flush(0) == wire.Flushed("s", 0, 99, 1000)
            fake.say_to_listeners(wire.Error(200, "UNKNOWN_STREAM", "there is no stream 's'", "s"))
            with pytest.raises(errors.StreamError, match="no stream 's'"):
                list(listener.audio(timeout_s=WAIT_S))


def test_the_state_of_a_stream_is_known(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        fake.say("s", wire.State("s", "starved", {}))
        glow.status()
        assert stream.state == "starved"


def test_the_callers_array_is_its_own(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        values = mel(10)
        stream.send(values)
        values[:] = 99
        fake.wait_for(lambda: fake.streams["s"].frames == 10)
        fake.streams["s"].seq = fake.streams["s"].frames = 0
        fake.say("s", wire.Error(204, "GAP", "again", "s", 0, False, 0))
        fake.wait_for(lambda: len(fake.of_type(wire.Mel)) == 2)
    assert fake.of_type(wire.Mel)[1].payload[0, 0] == -4
