"""A stream from open to close, with client, engine and speaker played by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.session import ENGINE_SLACK_NS, MAX_PIECE_SAMPLES
from glowd.daemon.gateway.sinks import FileSink, Piece
from glowd.daemon.gateway.utterance import MAX_REFUSALS
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.telemetry import Underruns
from tests.daemon.gateway.session_rig import HOP, TERMS, Rig, mel, signal


def test_an_utterance_reaches_every_sink_to_the_sample(tmp_path: Path) -> None:
    rig = Rig("socket", "device", "null", "file:a", directory=tmp_path)
    for frames in (3, 1, 6):
        rig.send(frames)
    rig.end()
    for frames in (2, 5, 3):
        rig.render(frames, last=frames == 3)
    assert rig.said(wire.Played) == [], "the device has not played it"
    rig.play(12)
    rig.played(10 * HOP)
    assert rig.ending == wire.Played("s", 0, 10 * HOP, 0)
    np.testing.assert_array_equal(rig.audio, signal(0, 10 * HOP))
    pieces = rig.said(ipc.Pcm, rig.speaker)
    np.testing.assert_array_equal(np.concatenate([piece.audio for piece in pieces]), signal(0, 10 * HOP))
    assert [piece.last for piece in pieces] == [False, False, True]
    assert [piece.last for piece in rig.said(wire.Audio)] == [False, False, True]
    assert (tmp_path / "a.wav").exists()


def test_the_engine_gets_the_frames_as_they_come() -> None:
    rig = Rig("null")
    assert rig.engine == [], "nothing is begun for a stream that is silent"
    rig.send(3)
    rig.send(2)
    rig.end()
    start, first, second, finish = rig.engine
    assert start == ipc.Start(rig.key, 9, 0, -1.0)
    assert isinstance(first, ipc.Frames) and isinstance(second, ipc.Frames)
    assert (first.first_frame, first.frames, second.first_frame, second.frames) == (0, 3, 3, 2)
    assert (first.t_client_ns, first.t_gateway_ns) == (7, rig.now_ns)
    assert finish == ipc.Finish(rig.key)


def test_the_slowest_sink_sets_the_pace_of_credit() -> None:
    rig = Rig("socket", "device")
    rig.send(20)
    rig.render(20)
    assert len(rig.audio) == 20 * HOP and rig.said(wire.Credit) == []
    rig.play(8 * HOP)
    assert rig.only(wire.Credit) == wire.Credit("s", 0, 8)


def test_a_client_that_does_not_read_loses_nothing_and_gets_no_credit() -> None:
    rig = Rig("socket")
    rig.owner_reads = False
    rig.send(20)
    rig.render(20)
    assert rig.said(wire.Credit) == []
    rig.owner_reads = True
    rig.session.settle()
    np.testing.assert_array_equal(rig.audio, signal(0, 20 * HOP))
    assert sum(credit.frames for credit in rig.said(wire.Credit)) == 20


def test_long_audio_is_cut_into_pieces_that_carry_on() -> None:
    terms = dataclasses.replace(TERMS, hop=MAX_PIECE_SAMPLES, window_frames=100)
    rig = Rig("socket", terms=terms)
    rig.send(3)
    rig.end()
    samples = 3 * MAX_PIECE_SAMPLES
    rig.session.pcm(rig.pcm(0, samples, last=True), rig.now_ns)
    np.testing.assert_array_equal(rig.audio, signal(0, samples))
    assert [piece.last for piece in rig.said(wire.Audio)] == [False, False, True]


def test_an_utterance_without_frames_is_played_and_leaves_nothing_in_the_engine() -> None:
    rig = Rig("socket")
    key = rig.key
    rig.end()
    assert rig.ending == wire.Played("s", 0, 0, 0)
    assert rig.only(wire.Audio).last
    assert rig.only(ipc.Drop, rig.engine).key == key
    assert rig.said(ipc.Finish, rig.engine) == []


def test_each_generation_begins_with_fresh_credit_and_a_fresh_engine() -> None:
    rig = Rig("socket")
    rig.send(4)
    rig.end()
    first_key = rig.key
    rig.render(4, last=True)
    assert rig.only(wire.Credit) == wire.Credit("s", 1, TERMS.window_frames)
    rig.anew()
    rig.send(4)
    assert rig.key != first_key
    assert [start.key for start in rig.said(ipc.Start, rig.engine)] == [first_key, rig.key]
    rig.end()
    rig.render(4, last=True)
    assert [played.generation for played in rig.said(wire.Played)] == [0, 1]
    assert [piece.seq for piece in rig.said(wire.Audio)] == [0, 0]


# ------------------------------------------------------------------- refusals


def test_a_refused_mel_uses_nothing_and_the_stream_goes_on() -> None:
    rig = Rig("socket")
    rig.send(3)
    rig.session.mel(mel(1, 4, 2), rig.now_ns)
    rig.session.refuse_mel(WireError(Code.NOT_FINITE, "NaN", "s"))
    gap, nan = rig.said(wire.Error)
    assert (gap.code, gap.fatal, gap.expected_frame, gap.generation) == (Code.GAP, False, 3, 0)
    assert (nan.code, nan.fatal, nan.expected_frame) == (Code.NOT_FINITE, False, 3)
    rig.send(2)
    assert rig.said(ipc.Frames, rig.engine)[-1].first_frame == 3


def test_the_seventeenth_refusal_ends_the_generation_and_the_next_may_begin() -> None:
    rig = Rig("socket")
    rig.send(3)
    key = rig.key
    for _ in range(MAX_REFUSALS + 1):
        rig.session.mel(mel(0, 0, 2), rig.now_ns)
    errors = rig.said(wire.Error)
    assert [error.fatal for error in errors] == [False] * MAX_REFUSALS + [True]
    assert errors[-1].code == Code.GAP and "one refusal too many" in errors[-1].text
    assert rig.only(ipc.Drop, rig.engine).key == key
    rig.anew()
    rig.send(2)
    assert len(rig.said(wire.Error)) == MAX_REFUSALS + 1
    assert rig.session.generation.number == 1


def test_mels_under_way_when_their_generation_ended_are_no_fault_of_the_next() -> None:
    rig = Rig("socket")
    rig.send(3)
    rig.flush()
    for seq in range(1, 60):
        rig.session.mel(mel(seq, 3 * seq, 3, generation=0), rig.now_ns)
    errors = rig.said(wire.Error)
    assert {(error.code, error.fatal, error.expected_frame) for error in errors} == {(Code.WRONG_GENERATION, False, -1)}
    rig.anew()
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    assert rig.said(wire.Played)[0].generation == 1


def test_a_generation_that_is_yet_to_come_is_a_fault() -> None:
    rig = Rig("socket")
    for _ in range(MAX_REFUSALS + 1):
        rig.session.mel(mel(0, 0, 3, generation=2), rig.now_ns)
    assert rig.said(wire.Error)[-1].fatal


def test_a_wrong_end_is_told_and_the_right_one_is_still_welcome() -> None:
    rig = Rig("socket")
    rig.send(4)
    rig.session.end(wire.End("s", 0, 5))
    assert rig.only(wire.Error).code == Code.GAP
    rig.end()
    rig.session.end(wire.End("s", 0, 4))
    assert rig.said(wire.Error)[-1].code == Code.WRONG_STATE
    rig.render(4, last=True)
    assert rig.only(wire.Played).total_samples == 4 * HOP


# ------------------------------------------------------------------- barge-in


def test_a_flush_of_the_device_waits_for_its_fade_and_tells_the_last_sample() -> None:
    rig = Rig("device")
    rig.send(10)
    rig.render(10)
    rig.play(12)
    key = rig.key
    rig.flush(fade_ms=4)
    assert rig.only(ipc.Flush, rig.speaker) == ipc.Flush(key, 4)
    assert rig.only(ipc.Drop, rig.engine).key == key
    assert rig.said(wire.Flushed) == [] and rig.session.state == "flushing"
    rig.session.pcm(rig.pcm(10 * HOP, HOP, key=key), rig.now_ns)
    rig.session.flushed(ipc.Flushed(key, 15, 24))
    assert rig.ending == wire.Flushed("s", 0, 15, 10 * HOP - 16)
    assert [piece for piece in rig.said(ipc.Pcm, rig.speaker) if piece.first_sample >= 10 * HOP] == []


def test_a_flush_of_the_socket_is_over_at_once() -> None:
    rig = Rig("socket")
    rig.send(10)
    rig.render(3)
    rig.owner_reads = False
    rig.render(4)
    rig.flush()
    rig.owner_reads = True
    rig.session.settle()
    assert rig.ending == wire.Flushed("s", 0, 3 * HOP - 1, 4 * HOP)
    assert len(rig.audio) == 3 * HOP, "nothing of the generation comes after the word that it is over"


def test_a_flush_before_the_first_frame_moves_on_to_the_next_generation() -> None:
    rig = Rig("device")
    rig.flush()
    assert rig.ending == wire.Flushed("s", 0, -1, 0)
    assert rig.speaker == [] and rig.engine == []


def test_flushing_twice_is_flushing_once() -> None:
    rig = Rig("device")
    rig.send(4)
    rig.flush()
    rig.flush()
    rig.session.interrupt(4)
    assert len(rig.said(ipc.Flush, rig.speaker)) == 1 and rig.said(wire.Error) == []


def test_frames_sent_after_ones_own_flush_are_refused_by_number() -> None:
    rig = Rig("device")
    rig.send(4)
    rig.flush()
    rig.send(4)
    assert rig.only(wire.Error).code == Code.WRONG_STATE


def test_a_client_that_somebody_interrupts_is_not_blamed_for_what_it_was_sending() -> None:
    rig = Rig("device")
    rig.send(2)
    rig.session.interrupt(4)
    for _ in range(40):
        rig.send(1)
    rig.end()
    rig.flush()
    assert rig.said(wire.Error) == []
    rig.session.flushed(ipc.Flushed(rig.key, -1, 0))
    assert rig.ending == wire.Flushed("s", 0, -1, 0)


def test_a_speaker_that_dies_while_it_fades_ends_the_flush() -> None:
    rig = Rig("device")
    rig.send(10)
    rig.render(10)
    rig.play(12)
    rig.flush()
    sent = len(rig.said(ipc.Pcm, rig.speaker))
    rig.session.speaker_back()
    assert rig.ending == wire.Flushed("s", 0, 11, 10 * HOP - 12)
    assert len(rig.said(ipc.Pcm, rig.speaker)) == sent, "what was flushed is not heard after all"


def test_a_flush_that_crosses_the_end_of_playing_is_answered() -> None:
    """A speaker has nothing left to fade then, and says only that it has played everything."""
    before, after = Rig("device"), Rig("device", "socket")
    for rig in (before, after):
        rig.owner_reads = False
        rig.send(4)
        rig.end()
        rig.render(4, last=True)
    before.flush()
    before.played(4 * HOP)
    after.played(4 * HOP)
    after.flush()
    assert before.ending == after.ending == wire.Flushed("s", 0, 4 * HOP - 1, 0)
    assert after.said(ipc.Flush, after.speaker) == []


def test_a_device_that_has_played_everything_is_left_alone() -> None:
    rig = Rig("device", "socket")
    rig.owner_reads = False
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    rig.played(4 * HOP)
    before = len(rig.speaker)
    rig.session.pause(True)
    rig.session.gain(-3)
    rig.session.speaker_back()
    rig.session.close()
    assert rig.speaker[before:] == []


def test_closing_drops_the_engines_state_and_detaches_the_device() -> None:
    rig = Rig("device", "socket")
    rig.send(10)
    rig.render(3)
    key = rig.key
    rig.session.close()
    assert rig.only(ipc.Drop, rig.engine).key == key
    assert rig.only(ipc.Detach, rig.speaker).key == key
    assert rig.session.state == "closed"


# -------------------------------------------------------------- pause and gain


def test_a_paused_socket_holds_its_audio_and_its_credit() -> None:
    rig = Rig("socket")
    rig.send(20)
    rig.session.pause(True)
    rig.render(20)
    assert len(rig.audio) == 0 and rig.session.state == "paused" and rig.said(wire.Credit) == []
    rig.session.pause(False)
    assert len(rig.audio) == 20 * HOP and rig.said(wire.Credit) != []


def test_pause_and_gain_reach_the_device_and_last_over_generations() -> None:
    rig = Rig("device")
    rig.session.gain(-6)
    rig.session.pause(True)
    rig.send(4)
    attach, pause = rig.speaker
    assert isinstance(attach, ipc.Attach) and attach.gain_db == -6 and attach.prefill_samples == 8
    assert pause == ipc.Pause(rig.key)
    rig.session.gain(-3)
    rig.session.pause(False)
    assert rig.speaker[2:] == [ipc.Gain(rig.key, -3), ipc.Resume(rig.key)]


# ------------------------------------------------------------- roles that died


def test_a_new_engine_gets_what_it_needs_and_its_first_samples_are_not_heard_twice() -> None:
    rig = Rig("socket")
    rig.send(12)
    rig.render(9)
    rig.send(3)
    rig.end()
    before = len(rig.engine)
    rig.session.engine_back()
    start, *frames, finish = rig.engine[before:]
    first = 9 - TERMS.history_frames
    assert start == ipc.Start(rig.key, 9, first, -1.0) and finish == ipc.Finish(rig.key)
    chunks = [chunk for chunk in frames if isinstance(chunk, ipc.Frames)]
    assert [(chunk.first_frame, chunk.frames) for chunk in chunks] == [(first, 8), (12, 3)]
    rig.session.pcm(rig.pcm(first * HOP, 11 * HOP, last=True), rig.now_ns)
    np.testing.assert_array_equal(rig.audio, signal(0, 15 * HOP))
    assert isinstance(rig.ending, wire.Played)


def test_a_new_engine_is_not_bothered_with_what_is_rendered_or_flushed() -> None:
    done, flushed, idle = Rig("device"), Rig("device"), Rig("device")
    done.send(4)
    done.end()
    done.render(4, last=True)
    flushed.send(4)
    flushed.flush()
    for rig in (done, flushed, idle):
        before = len(rig.engine)
        rig.session.engine_back()
        assert rig.engine[before:] == []


def test_a_new_speaker_goes_on_where_the_last_one_stopped() -> None:
    rig = Rig("device")
    rig.send(10)
    for frames in (3, 4, 3):
        rig.render(frames)
    rig.play(18)
    rig.session.pause(True)
    before = len(rig.speaker)
    rig.session.speaker_back()
    attach, pause, *pieces = rig.speaker[before:]
    assert attach == ipc.Attach(rig.key, 0.0, 8, 18) and pause == ipc.Pause(rig.key)
    again = [piece for piece in pieces if isinstance(piece, ipc.Pcm)]
    assert again[0].first_sample == 18
    np.testing.assert_array_equal(np.concatenate([piece.audio for piece in again]), signal(18, 10 * HOP - 18))


def test_an_engine_that_fails_fails_the_stream_it_was_working_for() -> None:
    rig = Rig("device")
    rig.send(10)
    rig.session.engine_failed(Code.ENGINE_LOST, "gone")
    assert isinstance(rig.ending, wire.Error) and rig.ending.code == Code.ENGINE_LOST


def test_an_engine_that_fails_after_its_part_is_done_costs_nothing() -> None:
    done, flushed, idle = Rig("device"), Rig("device"), Rig("device")
    done.send(4)
    done.end()
    done.render(4, last=True)
    flushed.send(4)
    flushed.flush()
    for rig in (done, flushed, idle):
        rig.session.engine_failed(Code.ENGINE_LOST, "gone")
        assert rig.said(wire.Error) == []
    done.played(4 * HOP)
    flushed.session.flushed(ipc.Flushed(flushed.key, -1, 0))
    assert isinstance(done.ending, wire.Played) and isinstance(flushed.ending, wire.Flushed)


def test_an_engine_that_breaks_the_timeline_fails_its_stream_with_a_number() -> None:
    rig = Rig("socket")
    rig.send(10)
    rig.session.pcm(rig.pcm(HOP, HOP), rig.now_ns)
    error = rig.only(wire.Error)
    assert error.fatal and error.code == Code.INTERNAL and "samples begin at 4, expected 0" in error.text


# ------------------------------------------------------------------- underruns


@pytest.mark.parametrize(("late_ns", "cause"), [(ENGINE_SLACK_NS + 1, "engine"), (ENGINE_SLACK_NS - 1, "client")])
def test_an_underrun_is_the_engines_if_the_frames_were_there_in_time(late_ns: int, cause: str) -> None:
    rig = Rig("device")
    rig.send(10)
    rig.render(4)
    rig.session.underrun(ipc.Underrun(rig.key, 4 * HOP, 3, rig.now_ns + late_ns))
    assert rig.session.meter.underruns == dataclasses.replace(
        Underruns(client=0, engine=0, missing_samples=3), **{cause: 1}
    )


def test_an_underrun_without_frames_is_the_clients_and_is_counted_in_the_ending() -> None:
    rig = Rig("device")
    rig.send(4)
    rig.render(3)
    rig.session.underrun(ipc.Underrun(rig.key, 4 * HOP, 3, rig.now_ns + 10**9))
    assert rig.session.meter.underruns.client == 1
    rig.end()
    rig.render(1, last=True)
    rig.played(4 * HOP)
    assert rig.ending == wire.Played("s", 0, 4 * HOP, 1)


# ---------------------------------------------------------------------- states


def test_the_states_of_a_stream_on_the_device() -> None:
    rig = Rig("device")
    rig.send(10)
    rig.render(4)
    rig.play(4)
    rig.play(4 * HOP)
    rig.end()
    rig.render(6, last=True)
    rig.played(10 * HOP)
    assert [state.state for state in rig.said(wire.State)] == ["priming", "playing", "starved", "ending", "idle"]


def test_a_stream_without_a_device_does_not_starve_between_chunks() -> None:
    rig = Rig("socket")
    rig.send(10)
    for _ in range(4):
        rig.render(2)
    assert [state.state for state in rig.said(wire.State)] == ["priming", "playing"]


def test_a_sink_that_cannot_be_opened_is_fatal_to_the_generation(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    rig = Rig("socket", "file:a", directory=tmp_path)
    rig.send(4)
    assert isinstance(rig.ending, wire.Error) and rig.ending.code == Code.SINK_UNAVAILABLE
    assert rig.said(ipc.Start, rig.engine) == []
    rig.anew()
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    assert (tmp_path / "a-1.wav").exists(), "the next generation has a name of its own"


def test_listeners_are_told_when_a_stream_is_closed_in_the_middle() -> None:
    rig, idle = Rig("device"), Rig("device")
    rig.send(10)
    rig.render(5)
    rig.play(12)
    rig.session.close()
    idle.session.close()
    assert rig.heard[-1] == wire.Flushed("s", 0, 11, 5 * HOP - 12)
    assert rig.said(wire.Flushed) == [], "its own client asked for it, or is gone"
    assert idle.heard == []


def test_listeners_hear_what_the_sinks_are_given() -> None:
    rig = Rig("device")
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    rig.played(16)
    audio, ending = rig.heard
    assert isinstance(audio, wire.Audio) and audio.last and isinstance(ending, wire.Played)


# ---------------------------------------------------------------- over long times


def test_a_long_utterance_keeps_no_more_frames_than_a_short_one() -> None:
    rig = Rig("null", terms=dataclasses.replace(TERMS, max_frames=1000))
    most = 0
    for _ in range(200):
        rig.send(4)
        rig.render(4)
        most = max(most, sum(len(chunk.mel) for chunk in rig.session.generation._held))
    assert most <= TERMS.history_frames + 2 * 4


def test_the_same_sink_twice_is_one_sink() -> None:
    rig = Rig("socket", "socket")
    rig.send(4)
    rig.end()
    rig.render(4, last=True)
    np.testing.assert_array_equal(rig.audio, signal(0, 4 * HOP))


def test_the_time_to_first_audio_begins_anew_with_each_utterance() -> None:
    rig = Rig("socket")
    for waited_ms in (30, 70):
        rig.anew()
        rig.send(4)
        rig.now_ns += waited_ms * 1_000_000
        rig.end()
        rig.render(4, last=True)
        assert rig.session.meter.ttfa_ms == waited_ms


def test_nothing_is_heard_after_a_sink_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(sink: FileSink, piece: Piece) -> None:
        raise WireError(Code.SINK_UNAVAILABLE, "no space left on device")

    monkeypatch.setattr(FileSink, "write", full)
    rig = Rig("file:a", "socket", terms=dataclasses.replace(TERMS, hop=MAX_PIECE_SAMPLES), directory=tmp_path)
    rig.send(3)
    rig.session.pcm(rig.pcm(0, 3 * MAX_PIECE_SAMPLES), rig.now_ns)
    assert isinstance(rig.ending, wire.Error) and rig.ending.code == Code.SINK_UNAVAILABLE
    assert rig.said(wire.Audio) == [] and rig.heard == [rig.ending]


def test_an_error_of_any_length_can_be_told() -> None:
    rig = Rig("null")
    rig.send(1)
    rig.session.fail(Code.INTERNAL, "x" * 5000)
    wire.encode(rig.ending)
