"""A stream from open to close; the test plays the client, the engine and the speaker."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.engine_side import MAX_CHUNK_SAMPLES
from glowd.daemon.gateway.streams.file_sink import FileSink
from glowd.daemon.gateway.streams.phases import Phase
from glowd.daemon.gateway.streams.sink_side import ENGINE_SLACK_NS, FORGET_FRAMES
from glowd.daemon.gateway.streams.sinks import AudioChunk
from glowd.daemon.gateway.streams.utterance import MAX_REFUSALS
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.telemetry import Underruns
from tests.harness.session import HOP, LIMITS, RATE, SessionHarness, mel_message, phase_at, ramp


def test_utterance_reaches_every_sink_completely(tmp_path: Path) -> None:
    harness = SessionHarness("socket", "device", "null", "file:a", directory=tmp_path)
    for frames in (3, 1, 6):
        harness.send(frames)
    harness.end()
    for frames in (2, 5, 3):
        harness.render(frames, last=frames == 3)
    assert harness.sent(wire.Played) == [], "the device has not played it"
    harness.play(12)
    harness.play_all(10 * HOP)
    assert harness.ending == wire.Played("s", 0, 10 * HOP, 0)
    np.testing.assert_array_equal(harness.audio, ramp(0, 10 * HOP))
    chunks = harness.sent(ipc.Pcm, harness.ports.speaker)
    np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in chunks]), ramp(0, 10 * HOP))
    assert [chunk.last for chunk in chunks] == [False, False, True]
    assert [chunk.last for chunk in harness.sent(wire.Audio)] == [False, False, True]
    assert (tmp_path / "a.wav").exists()


def test_frames_reach_the_engine_as_they_arrive() -> None:
    harness = SessionHarness("null")
    assert harness.ports.engine == [], "an idle stream needs no engine"
    harness.send(3)
    harness.send(2)
    harness.end()
    start, first, second, finish = harness.ports.engine
    assert start == ipc.Start(harness.key, 9, 0, -1.0)
    assert isinstance(first, ipc.Frames) and isinstance(second, ipc.Frames)
    assert (first.first_frame, first.frames, second.first_frame, second.frames) == (0, 3, 3, 2)
    assert (first.t_client_ns, first.t_gateway_ns) == (7, harness.now_ns)
    assert finish == ipc.Finish(harness.key, harness.now_ns)


def test_credit_follows_the_slowest_sink() -> None:
    harness = SessionHarness("socket", "device")
    harness.send(20)
    harness.render(20)
    assert len(harness.audio) == 20 * HOP and harness.sent(wire.Credit) == []
    harness.play(8 * HOP)
    assert harness.only(wire.Credit) == wire.Credit("s", 0, 8)


def test_client_not_reading_gets_no_credit_and_loses_nothing() -> None:
    harness = SessionHarness("socket")
    harness.ports.owner_reads = False
    harness.send(20)
    harness.render(20)
    assert harness.sent(wire.Credit) == []
    harness.ports.owner_reads = True
    harness.session.sinks.settle()
    np.testing.assert_array_equal(harness.audio, ramp(0, 20 * HOP))
    assert sum(credit.frames for credit in harness.sent(wire.Credit)) == 20


def test_long_audio_is_sent_in_chunks() -> None:
    limits = dataclasses.replace(LIMITS, hop=MAX_CHUNK_SAMPLES, window_frames=100)
    harness = SessionHarness("socket", limits=limits)
    harness.send(3)
    harness.end()
    samples = 3 * MAX_CHUNK_SAMPLES
    harness.session.engine.pcm(harness.pcm(0, samples, last=True), harness.now_ns)
    np.testing.assert_array_equal(harness.audio, ramp(0, samples))
    assert [chunk.last for chunk in harness.sent(wire.Audio)] == [False, False, True]


def test_empty_utterance_is_played_and_dropped_from_engine() -> None:
    harness = SessionHarness("socket")
    key = harness.key
    harness.end()
    assert harness.ending == wire.Played("s", 0, 0, 0)
    assert harness.only(wire.Audio).last
    assert harness.only(ipc.Drop, harness.ports.engine).key == key
    assert harness.sent(ipc.Finish, harness.ports.engine) == []


def test_each_utterance_has_its_own_credit_and_key() -> None:
    harness = SessionHarness("socket")
    harness.send(4)
    harness.end()
    first_key = harness.key
    harness.render(4, last=True)
    assert harness.only(wire.Credit) == wire.Credit("s", 1, LIMITS.window_frames)
    harness.reset_counters()
    harness.send(4)
    assert harness.key != first_key
    assert [start.key for start in harness.sent(ipc.Start, harness.ports.engine)] == [first_key, harness.key]
    harness.end()
    harness.render(4, last=True)
    assert [played.generation for played in harness.sent(wire.Played)] == [0, 1]
    assert [chunk.seq for chunk in harness.sent(wire.Audio)] == [0, 0]


# ------------------------------------------------------------------- refusals


def test_refused_mel_uses_nothing_and_stream_continues() -> None:
    harness = SessionHarness("socket")
    harness.send(3)
    harness.session.client.mel(mel_message(1, 4, 2), harness.now_ns)
    harness.session.client.refuse_mel(WireError(Code.NOT_FINITE, "NaN", "s"))
    gap, nan = harness.sent(wire.Error)
    assert (gap.code, gap.fatal, gap.expected_frame, gap.generation) == (Code.GAP, False, 3, 0)
    assert (nan.code, nan.fatal, nan.expected_frame) == (Code.NOT_FINITE, False, 3)
    harness.send(2)
    assert harness.sent(ipc.Frames, harness.ports.engine)[-1].first_frame == 3


def test_seventeenth_refusal_fails_the_utterance() -> None:
    harness = SessionHarness("socket")
    harness.send(3)
    key = harness.key
    for _ in range(MAX_REFUSALS + 1):
        harness.session.client.mel(mel_message(0, 0, 2), harness.now_ns)
    errors = harness.sent(wire.Error)
    assert [error.fatal for error in errors] == [False] * MAX_REFUSALS + [True]
    assert errors[-1].code == Code.GAP and "one refusal too many" in errors[-1].text
    assert harness.only(ipc.Drop, harness.ports.engine).key == key
    harness.reset_counters()
    harness.send(2)
    assert len(harness.sent(wire.Error)) == MAX_REFUSALS + 1
    assert harness.session.state.utterance.number == 1


def test_late_mels_do_not_count_against_the_next_utterance() -> None:
    harness = SessionHarness("socket")
    harness.send(3)
    harness.flush()
    for seq in range(1, 60):
        harness.session.client.mel(mel_message(seq, 3 * seq, 3, generation=0), harness.now_ns)
    errors = harness.sent(wire.Error)
    assert {(error.code, error.fatal, error.expected_frame) for error in errors} == {(Code.WRONG_GENERATION, False, -1)}
    harness.reset_counters()
    harness.send(4)
    harness.end()
    harness.render(4, last=True)
    assert harness.sent(wire.Played)[0].generation == 1


def test_mels_of_a_future_generation_are_refused() -> None:
    harness = SessionHarness("socket")
    for _ in range(MAX_REFUSALS + 1):
        harness.session.client.mel(mel_message(0, 0, 3, generation=2), harness.now_ns)
    assert harness.sent(wire.Error)[-1].fatal


def test_wrong_end_is_refused_and_right_one_accepted() -> None:
    harness = SessionHarness("socket")
    harness.send(4)
    harness.session.client.end(wire.End("s", 0, 5), harness.now_ns)
    assert harness.only(wire.Error).code == Code.GAP
    harness.end()
    harness.session.client.end(wire.End("s", 0, 4), harness.now_ns)
    assert harness.sent(wire.Error)[-1].code == Code.WRONG_STATE
    harness.render(4, last=True)
    assert harness.only(wire.Played).total_samples == 4 * HOP


# ------------------------------------------------------------------- barge-in


def test_device_flush_reports_last_sample_after_fade() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.render(10)
    harness.play(12)
    key = harness.key
    harness.flush(fade_ms=4)
    assert harness.only(ipc.Flush, harness.ports.speaker) == ipc.Flush(key, 4)
    assert harness.only(ipc.Drop, harness.ports.engine).key == key
    assert harness.sent(wire.Flushed) == [] and harness.session.state.state == "flushing"
    harness.session.engine.pcm(harness.pcm(10 * HOP, HOP), harness.now_ns)
    harness.faded(15)
    assert harness.ending == wire.Flushed("s", 0, 15, 10 * HOP - 16)
    assert [chunk for chunk in harness.sent(ipc.Pcm, harness.ports.speaker) if chunk.first_sample >= 10 * HOP] == []


def test_socket_flush_ends_at_once() -> None:
    harness = SessionHarness("socket")
    harness.send(10)
    harness.render(3)
    harness.ports.owner_reads = False
    harness.render(4)
    harness.flush()
    harness.ports.owner_reads = True
    harness.session.sinks.settle()
    assert harness.ending == wire.Flushed("s", 0, 3 * HOP - 1, 4 * HOP)
    assert len(harness.audio) == 3 * HOP, "no audio follows the ending"


def test_idle_flush_starts_the_next_generation() -> None:
    harness = SessionHarness("device")
    harness.flush()
    assert harness.ending == wire.Flushed("s", 0, -1, 0)
    assert harness.ports.speaker == [] and harness.ports.engine == []


def test_second_flush_changes_nothing() -> None:
    harness = SessionHarness("device")
    harness.send(4)
    harness.flush()
    harness.flush()
    harness.session.client.flush_by_other(4)
    assert len(harness.sent(ipc.Flush, harness.ports.speaker)) == 1 and harness.sent(wire.Error) == []


def test_mel_after_own_flush_is_refused() -> None:
    harness = SessionHarness("device")
    harness.send(4)
    harness.flush()
    harness.send(4)
    assert harness.only(wire.Error).code == Code.WRONG_STATE


def test_flush_by_other_reports_no_fault_to_the_owner() -> None:
    harness = SessionHarness("device")
    harness.send(2)
    harness.session.client.flush_by_other(4)
    for _ in range(40):
        harness.send(1)
    harness.end()
    harness.flush()
    assert harness.sent(wire.Error) == []
    harness.faded(-1)
    assert harness.ending == wire.Flushed("s", 0, -1, 0)


def test_speaker_lost_while_fading_ends_the_flush() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.render(10)
    harness.play(12)
    harness.flush()
    sent = len(harness.sent(ipc.Pcm, harness.ports.speaker))
    harness.session.sinks.resume()
    assert harness.ending == wire.Flushed("s", 0, 11, 10 * HOP - 12)
    assert len(harness.sent(ipc.Pcm, harness.ports.speaker)) == sent, "flushed audio is not sent again"


def test_flush_at_end_of_playback_is_answered() -> None:
    """The speaker has nothing to fade then, and reports only that it has played everything."""
    before, after = SessionHarness("device"), SessionHarness("device", "socket")
    for harness in (before, after):
        harness.ports.owner_reads = False
        harness.send(4)
        harness.end()
        harness.render(4, last=True)
    before.flush()
    before.play_all(4 * HOP)
    after.play_all(4 * HOP)
    after.flush()
    assert before.ending == after.ending == wire.Flushed("s", 0, 4 * HOP - 1, 0)
    assert after.sent(ipc.Flush, after.ports.speaker) == []


def test_finished_device_gets_no_messages() -> None:
    harness = SessionHarness("device", "socket")
    harness.ports.owner_reads = False
    harness.send(4)
    harness.end()
    harness.render(4, last=True)
    harness.play_all(4 * HOP)
    before = len(harness.ports.speaker)
    harness.session.client.pause(True)
    harness.session.client.gain(-3)
    harness.session.sinks.resume()
    harness.session.state.close()
    assert harness.ports.speaker[before:] == []


def test_close_drops_from_engine_and_detaches_device() -> None:
    harness = SessionHarness("device", "socket")
    harness.send(10)
    harness.render(3)
    key = harness.key
    harness.session.state.close()
    assert harness.only(ipc.Drop, harness.ports.engine).key == key
    assert harness.only(ipc.Detach, harness.ports.speaker).key == key
    assert harness.session.state.state == "closed"


# -------------------------------------------------------------- pause and gain


def test_paused_socket_holds_audio_and_credit() -> None:
    harness = SessionHarness("socket")
    harness.send(20)
    harness.session.client.pause(True)
    harness.render(20)
    assert len(harness.audio) == 0 and harness.session.state.state == "paused" and harness.sent(wire.Credit) == []
    harness.session.client.pause(False)
    assert len(harness.audio) == 20 * HOP and harness.sent(wire.Credit) != []


def test_pause_and_gain_reach_the_device_of_later_utterances() -> None:
    harness = SessionHarness("device")
    harness.session.client.gain(-6)
    harness.session.client.pause(True)
    harness.send(4)
    attach, pause = harness.ports.speaker
    assert isinstance(attach, ipc.Attach) and attach.gain_db == -6 and attach.prefill_samples == 8
    assert pause == ipc.Pause(harness.key)
    harness.session.client.gain(-3)
    harness.session.client.pause(False)
    assert harness.ports.speaker[2:] == [ipc.Gain(harness.key, -3), ipc.Resume(harness.key)]


def test_device_collects_more_of_an_engine_whose_way_varies() -> None:
    """Each utterance anew: the stream may have moved meanwhile."""
    harness, asked = SessionHarness("device"), []
    for cushion_ms in (0.0, 50.0):
        harness.ports.cushion_ms = cushion_ms
        harness.reset_counters()
        harness.send(5)
        harness.end()
        harness.render(5, last=True)
        harness.play_all(5 * HOP)
        attach = [message for message in harness.ports.speaker if isinstance(message, ipc.Attach)][-1]
        asked.append(attach.prefill_samples)
    assert asked == [8, 8 + 50 * RATE // 1000]


# --------------------------------------------------------- lost engine or speaker


def test_resume_replays_frames_and_repeats_no_sample() -> None:
    harness = SessionHarness("socket")
    harness.send(12)
    for _ in range(3):
        harness.render(3)
    harness.send(3)
    harness.end()
    before = len(harness.ports.engine)
    harness.session.engine.resume()
    start, *frames, finish = harness.ports.engine[before:]
    first = 3  # the newest end of a message that is history_frames old: 9 - 5 is in the middle of one
    assert start == ipc.Start(harness.key, 9, first, -1.0, LIMITS.lead_frames, phase_at(first), attempt=1)
    assert finish == ipc.Finish(harness.key, harness.now_ns)
    chunks = [chunk for chunk in frames if isinstance(chunk, ipc.Frames)]
    assert [(chunk.first_frame, chunk.frames) for chunk in chunks] == [(first - LIMITS.lead_frames, 11), (12, 3)]
    harness.session.engine.pcm(harness.pcm(first * HOP, 12 * HOP, last=True), harness.now_ns)
    np.testing.assert_array_equal(harness.audio, ramp(0, 15 * HOP))
    assert isinstance(harness.ending, wire.Played)


def test_resume_of_rendered_or_flushed_sends_nothing() -> None:
    done, flushed, idle = SessionHarness("device"), SessionHarness("device"), SessionHarness("device")
    done.send(4)
    done.end()
    done.render(4, last=True)
    flushed.send(4)
    flushed.flush()
    for harness in (done, flushed, idle):
        before = len(harness.ports.engine)
        harness.session.engine.resume()
        assert harness.ports.engine[before:] == []


def test_restarted_speaker_continues_where_it_stopped() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    for frames in (3, 4, 3):
        harness.render(frames)
    harness.play(18)
    harness.session.client.pause(True)
    before = len(harness.ports.speaker)
    harness.session.sinks.resume()
    attach, pause, *chunks = harness.ports.speaker[before:]
    assert attach == ipc.Attach(harness.key, RATE, 0.0, 8, 18) and pause == ipc.Pause(harness.key)
    again = [chunk for chunk in chunks if isinstance(chunk, ipc.Pcm)]
    assert again[0].first_sample == 18
    np.testing.assert_array_equal(np.concatenate([chunk.audio for chunk in again]), ramp(18, 10 * HOP - 18))


def test_engine_failure_fails_the_utterance() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.session.engine.failed(Code.ENGINE_LOST, "gone")
    assert isinstance(harness.ending, wire.Error) and harness.ending.code == Code.ENGINE_LOST


def test_engine_failure_after_rendering_costs_nothing() -> None:
    done, flushed, idle = SessionHarness("device"), SessionHarness("device"), SessionHarness("device")
    done.send(4)
    done.end()
    done.render(4, last=True)
    flushed.send(4)
    flushed.flush()
    for harness in (done, flushed, idle):
        harness.session.engine.failed(Code.ENGINE_LOST, "gone")
        assert harness.sent(wire.Error) == []
    done.play_all(4 * HOP)
    flushed.faded(-1)
    assert isinstance(done.ending, wire.Played) and isinstance(flushed.ending, wire.Flushed)


def test_samples_after_the_last_are_ignored() -> None:
    """An engine that was taken for lost may send late."""
    harness = SessionHarness("device")
    harness.send(2)
    harness.end()
    harness.render(2, last=True)
    harness.session.engine.pcm(harness.pcm(0, HOP), harness.now_ns)
    assert harness.phase is Phase.RENDERED and len(harness.sent(ipc.Pcm, harness.ports.speaker)) == 1


def test_what_was_sent_before_a_new_start_is_ignored() -> None:
    harness = SessionHarness("socket")
    harness.send(12)
    late = dataclasses.replace(harness.pcm(8 * HOP, 4 * HOP), attempt=0)
    harness.session.engine.pcm(dataclasses.replace(harness.pcm(0, 4 * HOP), attempt=0), harness.now_ns)
    harness.session.engine.resume()
    harness.session.engine.pcm(late, harness.now_ns)
    harness.session.engine.gave_up(ipc.Failed(harness.key, "too late", attempt=0))
    assert not harness.sent(wire.Error)
    harness.session.engine.pcm(dataclasses.replace(harness.pcm(4 * HOP, 4 * HOP), attempt=1), harness.now_ns)
    np.testing.assert_array_equal(harness.audio, ramp(0, 8 * HOP))
    harness.session.engine.gave_up(ipc.Failed(harness.key, "in time", attempt=1))
    assert "in time" in harness.only(wire.Error).text


def test_last_samples_before_the_end_fail_the_utterance() -> None:
    harness = SessionHarness("socket")
    harness.send(2)
    harness.render(2, last=True)
    error = harness.only(wire.Error)
    assert error.fatal and error.code == Code.INTERNAL and "the client has not ended" in error.text


def test_gap_in_samples_fails_the_utterance() -> None:
    harness = SessionHarness("socket")
    harness.send(10)
    harness.session.engine.pcm(harness.pcm(HOP, HOP), harness.now_ns)
    error = harness.only(wire.Error)
    assert error.fatal and error.code == Code.INTERNAL and "samples begin at 4, expected 0" in error.text


# ------------------------------------------------------------------- underruns


@pytest.mark.parametrize(("late_ns", "cause"), [(ENGINE_SLACK_NS + 1, "engine"), (ENGINE_SLACK_NS - 1, "client")])
def test_underrun_of_a_due_sample_is_the_engines(late_ns: int, cause: str) -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.render(4)
    harness.render(4)
    harness.underrun(4 * HOP, late_ns)
    assert harness.session.state.meter.underruns == dataclasses.replace(
        Underruns(client=0, engine=0, device=0, missing_samples=3), **{cause: 1}
    )


def test_underrun_of_a_lost_device_is_the_devices_and_counts() -> None:
    harness = SessionHarness("device")
    harness.send(4)
    harness.render(4)
    harness.underrun(2 * HOP, 10**9, by_device=True)
    assert harness.session.state.meter.underruns == Underruns(client=0, engine=0, device=1, missing_samples=3)
    harness.end()
    harness.render(0, last=True)
    harness.play_all(4 * HOP)
    assert harness.ending == wire.Played("s", 0, 4 * HOP, 1)


def test_underrun_while_frames_wait_for_a_chunk_is_the_clients() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.render(8)
    harness.underrun(8 * HOP, 10**9)
    assert harness.session.state.meter.underruns.client == 1


def test_underrun_without_frames_is_the_clients_and_counts() -> None:
    harness = SessionHarness("device")
    harness.send(4)
    harness.render(3)
    harness.underrun(4 * HOP, 10**9)
    assert harness.session.state.meter.underruns.client == 1
    harness.end()
    harness.render(1, last=True)
    harness.play_all(4 * HOP)
    assert harness.ending == wire.Played("s", 0, 4 * HOP, 1)


# ---------------------------------------------------------------------- states


def test_device_stream_passes_through_all_states() -> None:
    harness = SessionHarness("device")
    harness.send(10)
    harness.render(4)
    harness.play(4)
    harness.play(4 * HOP)
    harness.end()
    harness.render(6, last=True)
    harness.play_all(10 * HOP)
    assert [state.state for state in harness.sent(wire.State)] == ["priming", "playing", "starved", "ending", "idle"]


def test_socket_stream_is_never_starved() -> None:
    harness = SessionHarness("socket")
    harness.send(10)
    for _ in range(4):
        harness.render(2)
    assert [state.state for state in harness.sent(wire.State)] == ["priming", "playing"]


def test_name_that_is_taken_later_fails_its_utterance_alone(tmp_path: Path) -> None:
    (tmp_path / "a-1.wav").touch()
    harness = SessionHarness("socket", "file:a", directory=tmp_path)
    for number, code in enumerate((None, Code.SINK_UNAVAILABLE, None)):
        harness.reset_counters()
        harness.send(4)
        if code is None:
            harness.end()
            harness.render(4, last=True)
            assert harness.sent(wire.Played)[-1].generation == number
        else:
            assert [error.code for error in harness.sent(wire.Error)] == [code]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-1.wav", "a-2.wav", "a.wav"]


def test_listeners_get_flushed_when_stream_closes() -> None:
    harness, idle = SessionHarness("device"), SessionHarness("device")
    harness.send(10)
    harness.render(5)
    harness.play(12)
    harness.session.state.close()
    idle.session.state.close()
    assert harness.ports.listeners[-1] == wire.Flushed("s", 0, 11, 5 * HOP - 12)
    assert harness.sent(wire.Flushed) == [], "its own client asked for it, or is gone"
    assert idle.ports.listeners == []


def test_listeners_get_audio_and_ending() -> None:
    harness = SessionHarness("device")
    harness.send(4)
    harness.end()
    harness.render(4, last=True)
    harness.play_all(16)
    audio, ending = harness.ports.listeners
    assert isinstance(audio, wire.Audio) and audio.last and isinstance(ending, wire.Played)


# ---------------------------------------------------------------- over long times


def test_long_utterance_keeps_few_frames() -> None:
    harness = SessionHarness("null", limits=dataclasses.replace(LIMITS, max_frames=1000))
    most = 0
    for _ in range(200):
        harness.send(4)
        harness.render(4)
        most = max(most, harness.session.state.utterance.kept_frames)
    assert most <= LIMITS.history_frames + LIMITS.lead_frames + FORGET_FRAMES + 3 * 4


def test_same_sink_twice_is_one_sink() -> None:
    harness = SessionHarness("socket", "socket")
    harness.send(4)
    harness.end()
    harness.render(4, last=True)
    np.testing.assert_array_equal(harness.audio, ramp(0, 4 * HOP))


def test_ttfa_is_measured_for_each_utterance() -> None:
    harness = SessionHarness("socket")
    for waited_ms in (30, 70):
        harness.reset_counters()
        harness.send(4)
        harness.now_ns += waited_ms * 1_000_000
        harness.end()
        harness.render(4, last=True)
        assert harness.session.state.meter.ttfa_ms == waited_ms


def test_sink_failure_stops_all_audio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(sink: FileSink, chunk: AudioChunk) -> None:
        raise WireError(Code.SINK_UNAVAILABLE, "no space left on device")

    monkeypatch.setattr(FileSink, "write", full)
    harness = SessionHarness(
        "file:a", "socket", limits=dataclasses.replace(LIMITS, hop=MAX_CHUNK_SAMPLES), directory=tmp_path
    )
    harness.send(3)
    harness.session.engine.pcm(harness.pcm(0, 3 * MAX_CHUNK_SAMPLES), harness.now_ns)
    assert isinstance(harness.ending, wire.Error) and harness.ending.code == Code.SINK_UNAVAILABLE
    assert harness.sent(wire.Audio) == [] and harness.ports.listeners == [harness.ending]


def test_long_error_text_can_be_sent() -> None:
    harness = SessionHarness("null")
    harness.send(1)
    harness.session.state.fail(Code.INTERNAL, "x" * 5000)
    wire.encode(harness.ending)


def test_speaker_is_told_when_the_newest_frames_came() -> None:
    """And whether their client had credit left: a client that sends as fast as it may has no clock that could drift."""
    harness = SessionHarness("device")
    arrived = []
    for frames in (3, 2, 15):  # credit for 20
        harness.now_ns += 1_000_000
        harness.send(frames)
        harness.render(2)
        pcm = harness.sent(ipc.Pcm, harness.ports.speaker)[-1]
        arrived.append((pcm.arrived_ns - 1_000_000_000, pcm.arrived_first, pcm.arrived_end, pcm.arrived_freely))
    assert arrived == [(1_000_000, 0, 12, True), (2_000_000, 12, 20, True), (3_000_000, 20, 80, False)]
