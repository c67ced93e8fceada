"""One utterance: what may come, what is granted, what is kept for an engine that starts anew."""

import dataclasses
import itertools

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.utterance import MAX_REFUSALS, Generation
from glowd.daemon.wire import Code, WireError
from tests.daemon.gateway.session_rig import HOP, TERMS, mel


def generation(**terms: int | bool) -> Generation:
    return Generation(0, 1, dataclasses.replace(TERMS, **terms))  # type: ignore[arg-type]


def pcm(first: int, samples: int, last: bool = False) -> ipc.Pcm:
    return ipc.Pcm(key=1, first_sample=first, samples=samples, last=last, audio=np.zeros(samples, np.float32))


def made(one: Generation, frames: int) -> None:
    one.made(pcm(one.samples_made, frames * HOP))


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (mel(1, 4, 2), Code.GAP, "seq 1 and first_frame 4; next are seq 1 and first_frame 5"),
        (mel(1, 6, 2), Code.GAP, "first_frame 6"),
        (mel(0, 5, 2), Code.GAP, "seq 0"),
        (mel(2, 5, 2), Code.GAP, "seq 2"),
        (mel(1, 5, 16), Code.OVER_CREDIT, "16 frames with credit for 15"),
        (mel(1, 5, 300), Code.TOO_LONG, "305 frames; an utterance may have 200"),
        (mel(1, 5, 2, bins=2), Code.BAD_SHAPE, "2 bins; this stream's have 3"),
    ],
)
def test_only_the_next_frames_within_credit_are_taken(message: wire.Mel, code: Code, said: str) -> None:
    one = generation()
    one.take(mel(0, 0, 5), 1)
    with pytest.raises(WireError, match=said) as caught:
        one.take(message, 2)
    assert caught.value.code is code and caught.value.stream == "s"
    assert one.frames_in == 5 and one.next_seq == 1
    one.take(mel(1, 5, 15), 3)
    assert one.frames_in == 20


def test_the_end_must_agree_on_the_number_of_frames() -> None:
    one = generation()
    one.take(mel(0, 0, 5), 1)
    with pytest.raises(WireError, match="end says 6 frames, 5 arrived"):
        one.end(wire.End("s", 0, 6))
    one.end(wire.End("s", 0, 5))
    for again in (lambda: one.end(wire.End("s", 0, 5)), lambda: one.take(mel(1, 5, 1), 1)):
        with pytest.raises(WireError) as caught:
            again()
        assert caught.value.code is Code.WRONG_STATE


def test_credit_is_what_was_delivered_and_never_more_than_the_window_ahead() -> None:
    one = generation()
    one.take(mel(0, 0, 20), 1)
    made(one, 20)
    assert one.credit(0) == 0
    assert one.credit(4 * HOP - 1) == 0, "credit comes for whole frames, some at a time"
    assert one.credit(4 * HOP) == 4
    assert one.credit(4 * HOP) == 0
    assert one.credit(20 * HOP) == 16
    assert one.granted_frames == 40


def test_credit_ends_with_the_longest_utterance_and_with_the_end() -> None:
    one = generation(max_frames=30)
    one.take(mel(0, 0, 20), 1)
    made(one, 20)
    assert one.credit(20 * HOP) == 10
    assert one.credit(20 * HOP) == 0
    other = generation()
    other.take(mel(0, 0, 20), 1)
    made(other, 20)
    other.end(wire.End("s", 0, 20))
    assert other.credit(20 * HOP) == 0


def test_the_last_frames_of_the_longest_utterance_are_granted() -> None:
    """No step of credit may be so large that the client waits for ever for what is left."""
    one = generation(max_frames=22, window_frames=20)
    one.take(mel(0, 0, 20), 1)
    made(one, 20)
    assert one.credit(20 * HOP) == 2
    one.take(mel(1, 20, 2), 1)


def test_a_voice_that_needs_everything_first_gives_credit_at_receipt() -> None:
    one = generation(whole_utterance=True)
    one.take(mel(0, 0, 20), 1)
    assert one.credit(0) == 20


def test_samples_are_taken_once_and_without_gaps() -> None:
    one = generation()
    one.take(mel(0, 0, 10), 1)
    assert len(one.made(pcm(0, 3 * HOP))) == 3 * HOP
    assert len(one.made(pcm(HOP, 3 * HOP))) == HOP, "two of the three frames were known"
    assert len(one.made(pcm(0, 2 * HOP))) == 0
    with pytest.raises(ValueError, match="samples begin at 20, expected 16"):
        one.made(pcm(5 * HOP, HOP))


@pytest.mark.parametrize("samples", [9 * HOP, 10 * HOP - 1, 10 * HOP + 1])
def test_a_complete_generation_has_a_hop_of_samples_for_every_frame(samples: int) -> None:
    one = generation()
    one.take(mel(0, 0, 10), 1)
    one.end(wire.End("s", 0, 10))
    with pytest.raises(ValueError, match=f"{samples} samples of 10 frames of {HOP}"):
        one.made(pcm(0, samples, last=True))


@pytest.mark.parametrize("chunks", [[1] * 60, [4] * 15, [7, 1, 20, 3, 20, 9]])
def test_what_a_replay_needs_is_kept_and_no_more(chunks: list[int]) -> None:
    one = generation(window_frames=1000)
    for seq, frames in enumerate(chunks):
        one.take(mel(seq, one.frames_in, frames), seq)
        made(one, frames)
        one.forget(one.samples_made)
        replay = one.replay()
        assert one.replay_from == max(0, one.frames_in - TERMS.history_frames)
        assert replay[0].first_frame == one.replay_from and replay[-1].end_frame == one.frames_in
        assert all(a.end_frame == b.first_frame for a, b in itertools.pairwise(replay))
        assert sum(len(chunk.mel) for chunk in one._held) < TERMS.history_frames + max(chunks)


def test_replay_begins_where_samples_are_missing_not_where_they_were_heard() -> None:
    one = generation()
    one.take(mel(0, 0, 20), 1)
    one.made(pcm(0, 12 * HOP + 1))
    one.forget(0)
    assert one.replay_from == 12 - TERMS.history_frames
    assert one.arrival_ns(0) == 1, "frames that were not heard yet are still known, for the cause of an underrun"


def test_the_arrival_of_a_sample_is_that_of_its_last_frame_of_look_ahead() -> None:
    one = generation()
    one.take(mel(0, 0, 2), 100)
    one.take(mel(1, 2, 2), 200)
    assert [one.arrival_ns(frame * HOP) for frame in range(4)] == [100, 200, 200, None]
    one.end(wire.End("s", 0, 4))
    assert one.arrival_ns(3 * HOP) == 200, "after the end nothing is waited for"


def test_the_refusal_after_the_last_allowed_one_is_too_many() -> None:
    one = generation()
    assert [one.refuse() for _ in range(MAX_REFUSALS + 1)] == [False] * MAX_REFUSALS + [True]


def test_mels_under_way_behind_a_refused_one_do_not_count() -> None:
    one = generation()
    assert not any(one.refuse(mel(seq, seq, 1)) for seq in range(1, 60))
    assert one.refusals == 1
    one.take(mel(0, 0, 1), 1)
    assert not one.refuse(mel(5, 5, 1))
    assert one.refusals == 2
    assert not one.refuse(mel(5, 5, 1)), "the same again is another fault"
    assert one.refusals == 3


def test_a_refusal_after_good_frames_is_a_fault_of_its_own() -> None:
    one = generation()
    assert not one.refuse(mel(0, 0, 1))
    one.take(mel(0, 0, 1), 1)
    assert not one.refuse(mel(5, 5, 1))
    assert one.refusals == 2


def test_what_the_device_has_not_played_yet_is_remembered_for_the_cause_of_an_underrun() -> None:
    one = generation()
    for frame in range(20):
        one.take(mel(frame, frame, 1), 100 + frame)
    made(one, 20)
    one.forget(3 * HOP)
    assert one.arrival_ns(3 * HOP) == 100 + 3 + TERMS.look_ahead_frames
    assert one.arrival_ns(0) == 100 + 3, "older ones are not"


def test_what_is_complete_stays_so() -> None:
    """An engine that was taken for dead may still have had something to say."""
    one = generation()
    one.take(mel(0, 0, 2), 1)
    one.end(wire.End("s", 0, 2))
    one.made(pcm(0, 2 * HOP, last=True))
    one.made(pcm(0, HOP))
    assert one.complete
