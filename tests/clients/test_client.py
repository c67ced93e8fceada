"""The blocking client against a fake daemon: credit, utterances, flushes, listeners."""

from functools import partial

import numpy as np
import pytest

from glowd.clients import Client, errors
from glowd.daemon import wire
from tests.clients.reading import in_thread, samples_of
from tests.fakes.daemon import HOP, FakeDaemon
from tests.harness.mels import mel
from tests.harness.waiting import WAIT_S


def test_five_line_use_speaks(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_socket_sink_audio_is_complete(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        stream.send(mel(70))
        stream.end()
        heard = samples_of(stream)
        played = stream.wait_played()
    np.testing.assert_array_equal(heard * 2**20, np.arange(70 * HOP))
    assert played == wire.Played(stream.name, 0, 70 * HOP, 0)


def test_send_without_credit_waits(fake: FakeDaemon) -> None:
    fake.auto = False
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(60))
        assert stream.credit_frames == 4
        sender = in_thread(lambda: stream.send(mel(20)))
        fake.wait_for(lambda: fake.streams["s"].frames == 64)
        glow.ping()  # whatever was sent before it has arrived
        assert sender.is_alive() and fake.streams["s"].frames == 64
        fake.streams["s"].credit_frames += 16
        fake.send("s", wire.Credit("s", 0, 16))
        sender.join(WAIT_S)
        assert not sender.is_alive()
        fake.wait_for(lambda: fake.streams["s"].frames == 80)


def test_send_without_credit_times_out(fake: FakeDaemon) -> None:
    fake.auto = False
    late = pytest.raises(errors.WaitTimeout, match=r"waited 0\.1 s for credit .* 64 of the 100 frames were taken")
    with Client(fake.endpoint) as glow, late, glow.open(sinks=["null"]) as stream:
        stream.send(mel(100), timeout_s=0.1)
    assert fake.of_type(wire.Flush)


def test_stream_speaks_several_utterances(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for number in range(3):
            assert stream.generation == number
            stream.send(mel(90))
            stream.end()
            played = stream.wait_played()
            assert isinstance(played, wire.Played) and played.generation == number
    assert [m.first_frame for m in fake.of_type(wire.Mel) if m.seq == 0] == [0, 0, 0]
    assert len(fake.of_type(wire.End)) == 3


def test_next_utterance_waits_for_the_ending(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["null"]) as stream:
        for _ in range(3):
            stream.send(mel(10))
            stream.end()
    assert [(m.generation, m.frames) for m in fake.of_type(wire.Mel)] == [(0, 10), (1, 10), (2, 10)]


def test_flush_returns_what_was_heard_and_continues(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["socket"]) as stream:
        stream.send(mel(20))
        assert stream.flush(30) == wire.Flushed("s", 0, 99, 1000)
        assert fake.of_type(wire.Flush) == [wire.Flush("s", 0, 30)]
        stream.send(mel(2))
        stream.end()
        heard = samples_of(stream)
    assert len(heard) == 2 * HOP, "audio of the flushed utterance is not heard afterwards"


def test_flush_by_another_client_interrupts_the_sender(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other, other.listen("s") as listener:
        stream = speaker.open("s", sinks=["null"])
        stream.send(mel(5))
        fake.wait_for(lambda: fake.streams["s"].frames == 5)
        listener.flush(0)
        with pytest.raises(errors.Interrupted, match="flushed by another client"):
            while True:
                stream.send(mel(1))
    assert {m.generation for m in fake.of_type(wire.Mel)} == {0}


def test_audio_is_readable_after_the_ending(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open(sinks=["socket"]) as stream:
        for frames in (5, 6, 7):
            stream.send(mel(frames))
            stream.wait_played(WAIT_S)
            if frames != 6:  # nobody reads the second: it is not in the way of the third
                assert len(samples_of(stream)) == frames * HOP


def test_flush_of_an_empty_utterance_sends_nothing(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        assert stream.flush() == wire.Flushed("s", 0, -1, 0)
        glow.ping()  # whatever was sent before it has arrived
        assert not fake.of_type(wire.Flush) and not fake.of_type(wire.End)


def test_flush_interrupts_a_blocked_send(fake: FakeDaemon) -> None:
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


def test_exception_in_the_block_flushes(fake: FakeDaemon) -> None:
    broken = pytest.raises(RuntimeError, match="tts broke")
    with Client(fake.endpoint) as glow, broken, glow.open("s", sinks=["null"]) as stream:
        stream.send(mel(5))
        raise RuntimeError("tts broke")
    fake.wait_for(lambda: not fake.streams)
    assert fake.of_type(wire.Flush) and not fake.of_type(wire.End)


def test_pause_gain_resume_are_sent(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"], seed=3, voice="glow") as stream:
        stream.pause()
        stream.gain(-6.0)
        stream.resume()
    fake.wait_for(lambda: fake.received[-1] == wire.Bye())
    assert fake.received[2:5] == [wire.Pause("s"), wire.Gain("s", -6.0), wire.Resume("s")]
    assert fake.received[1].seed == 3  # type: ignore[attr-defined]


def test_threads_share_a_client(fake: FakeDaemon) -> None:
    heard: dict[str, int] = {}

    def speak(name: str) -> None:
        with glow.open(name, sinks=["socket"]) as stream:
            stream.send(mel(100))
            stream.end()
            heard[name] = len(samples_of(stream))

    with Client(fake.endpoint) as glow:
        threads = [in_thread(partial(speak, f"s{number}")) for number in range(4)]
        for thread in threads:
            thread.join(WAIT_S)
    assert heard == {f"s{number}": 100 * HOP for number in range(4)}


def test_close_closes_streams_and_says_bye(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.open("s", sinks=["null"])
    fake.wait_for(lambda: fake.received[-1] == wire.Bye())
    assert fake.received[-2] == wire.Close("s")


def test_unnamed_streams_get_different_names(fake: FakeDaemon) -> None:
    with Client(fake.endpoint, name="tts") as glow:
        first, second = glow.open(sinks=["null"]), glow.open(sinks=["null"])
        assert first.name != second.name and first.name.startswith("tts-")
        with pytest.raises(errors.StreamError, match="choose another name"):
            glow.open(first.name)


def test_status_and_ping_are_answered(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        assert glow.status() == wire.State("", "ready", {"streams": 0})
        assert 0 < glow.ping() < 1_000_000_000


def test_listener_receives_other_clients_audio(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other, other.listen("*") as listener:
        fake.wait_for(lambda: bool(fake.listeners))
        with speaker.open("s", sinks=["null"]) as stream:
            stream.send(mel(20))
        chunks = []
        for chunk in listener.audio(timeout_s=WAIT_S):
            chunks.append(chunk)
            if chunk.last:
                break
    assert sum(chunk.samples for chunk in chunks) == 20 * HOP
    fake.wait_for(lambda: bool(fake.of_type(wire.Unlisten)))


def test_open_and_listen_ask_for_a_rate_and_a_type(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow:
        glow.listen("*", audio_rate_hz=8000, audio_dtype="s16")
        stream = glow.open("s", audio_rate_hz=16_000, audio_dtype="s16", catch_up="live", max_lead_ms=400)
        assert (stream.rate_hz, stream.audio_rate_hz, stream.audio_latency_ms) == (22_050, 16_000, 39.9)
        assert glow.open("t").audio_rate_hz == 22_050
    assert fake.of_type(wire.Listen) == [wire.Listen("*", 8000, "s16")]
    asked = fake.of_type(wire.Open)[0]
    assert (asked.audio_rate_hz, asked.audio_dtype, asked.catch_up, asked.max_lead_ms) == (16_000, "s16", "live", 400)


def test_daemon_that_does_not_know_rates_is_refused(fake: FakeDaemon) -> None:
    fake.knows_rates = False
    with Client(fake.endpoint) as glow:
        with pytest.raises(errors.Refused, match="this daemon cannot send audio at 16000 Hz"):
            glow.open("s", audio_rate_hz=16_000)
        assert glow.open("s").audio_rate_hz == 22_050


def test_listener_flushes_another_clients_stream(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as speaker, Client(fake.endpoint) as other:
        stream = speaker.open("s", sinks=["null"])
        stream.send(mel(5))
        with other.listen("s") as listener:
            fake.wait_for(lambda: bool(fake.listeners))
            assert listener.flush(0) == wire.Flushed("s", 0, 99, 1000)
            fake.send_to_listeners(wire.Error(200, "UNKNOWN_STREAM", "there is no stream 's'", "s"))
            with pytest.raises(errors.StreamError, match="no stream 's'"):
                list(listener.audio(timeout_s=WAIT_S))


def test_stream_state_follows_the_daemon(fake: FakeDaemon) -> None:
    with Client(fake.endpoint) as glow, glow.open("s", sinks=["null"]) as stream:
        fake.send("s", wire.State("s", "starved", {}))
        glow.status()
        assert stream.state == "starved"
