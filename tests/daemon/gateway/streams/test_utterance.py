"""One utterance: which frames are accepted, what is granted, what is kept for another engine."""

import dataclasses
import itertools

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway.streams.utterance import MAX_REFUSALS, Utterance
from glowd.daemon.wire import Code, WireError
from tests.harness.session import HOP, LIMITS, mel_message, phase_at


def utterance(**limits: int | bool) -> Utterance:
    return Utterance(0, 1, dataclasses.replace(LIMITS, **limits))  # type: ignore[arg-type]


def pcm(first: int, samples: int, last: bool = False, t_due_ns: int = 0) -> ipc.Pcm:
    done, audio = (first + samples) // HOP, np.zeros(samples, np.float32)
    return ipc.Pcm(1, first, samples, last, done, t_due_ns=t_due_ns, audio=audio, phase=phase_at(done))


def render(one: Utterance, frames: int) -> None:
    one.accept_pcm(pcm(one.samples_made, frames * HOP))


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (mel_message(1, 4, 2), Code.GAP, "seq 1 and first_frame 4; expected seq 1 and first_frame 5"),
        (mel_message(1, 6, 2), Code.GAP, "first_frame 6"),
        (mel_message(0, 5, 2), Code.GAP, "seq 0"),
        (mel_message(2, 5, 2), Code.GAP, "seq 2"),
        (mel_message(1, 5, 16), Code.OVER_CREDIT, "16 frames sent with credit for 15"),
        (mel_message(1, 5, 300), Code.TOO_LONG, "305 frames; an utterance may have at most 200"),
        (mel_message(1, 5, 2, bins=2), Code.BAD_SHAPE, "2 bins; this stream's mels have 3"),
    ],
)
def test_only_next_frames_within_credit_are_accepted(message: wire.Mel, code: Code, said: str) -> None:
    one = utterance()
    one.take(mel_message(0, 0, 5), 1)
    with pytest.raises(WireError, match=said) as caught:
        one.take(message, 2)
    assert caught.value.code is code and caught.value.stream == "s"
    assert one.frames_in == 5 and one.next_seq == 1
    one.take(mel_message(1, 5, 15), 3)
    assert one.frames_in == 20


def test_end_must_count_all_frames() -> None:
    one = utterance()
    one.take(mel_message(0, 0, 5), 1)
    with pytest.raises(WireError, match="end has total_frames 6; 5 frames arrived"):
        one.end(wire.End("s", 0, 6), 5)
    assert one.total_frames is None
    one.end(wire.End("s", 0, 5), 5)
    assert one.total_frames == 5


def test_credit_stays_one_window_ahead_of_delivery() -> None:
    one = utterance()
    one.take(mel_message(0, 0, 20), 1)
    render(one, 20)
    assert one.credit(0) == 0
    assert one.credit(4 * HOP - 1) == 0, "credit is for whole frames, in steps"
    assert one.credit(4 * HOP) == 4
    assert one.credit(4 * HOP) == 0
    assert one.credit(20 * HOP) == 16
    assert one.granted_frames == 40


def test_credit_of_a_wide_window_comes_in_an_eighth_of_it() -> None:
    one = utterance(window_frames=80, max_frames=160)
    grants = [one.credit(frame * HOP) for frame in range(81)]
    assert [(frame, grant) for frame, grant in enumerate(grants) if grant] == [(10 * n, 10) for n in range(1, 9)]


def test_credit_ends_at_the_longest_utterance() -> None:
    one = utterance(max_frames=30)
    one.take(mel_message(0, 0, 20), 1)
    render(one, 20)
    assert one.credit(20 * HOP) == 10
    assert one.credit(20 * HOP) == 0


def test_last_frames_of_longest_utterance_are_granted() -> None:
    """The last step of credit may be smaller: the client must not wait for a full one."""
    one = utterance(max_frames=22, window_frames=20)
    one.take(mel_message(0, 0, 20), 1)
    render(one, 20)
    assert one.credit(20 * HOP) == 2
    one.take(mel_message(1, 20, 2), 1)


def test_whole_utterance_voice_grants_credit_on_receipt() -> None:
    one = utterance(whole_utterance=True)
    one.take(mel_message(0, 0, 20), 1)
    assert one.credit(0) == 20


def test_samples_are_accepted_once_without_gaps() -> None:
    one = utterance()
    one.take(mel_message(0, 0, 10), 1)
    assert len(one.accept_pcm(pcm(0, 3 * HOP))) == 3 * HOP
    assert len(one.accept_pcm(pcm(HOP, 3 * HOP))) == HOP, "two of the three frames were accepted before"
    assert len(one.accept_pcm(pcm(0, 2 * HOP))) == 0
    with pytest.raises(ValueError, match="samples begin at 20, expected 16"):
        one.accept_pcm(pcm(5 * HOP, HOP))


@pytest.mark.parametrize("samples", [9 * HOP, 10 * HOP - 1, 10 * HOP + 1])
def test_last_samples_must_complete_the_frames(samples: int) -> None:
    one = utterance()
    one.take(mel_message(0, 0, 10), 1)
    one.end(wire.End("s", 0, 10), 5)
    with pytest.raises(ValueError, match=f"samples end at {samples}, expected {10 * HOP}"):
        one.accept_pcm(pcm(0, samples, last=True))


@pytest.mark.parametrize("chunks", [[1] * 60, [4] * 15, [7, 1, 20, 3, 20, 9]])
def test_only_frames_for_a_replay_are_kept(chunks: list[int]) -> None:
    one = utterance(window_frames=1000)
    for seq, frames in enumerate(chunks):
        one.take(mel_message(seq, one.frames_in, frames), seq)
        render(one, frames)
        one.forget(one.samples_made)
        replay, ends = one.replay(), [0, *itertools.accumulate(chunks[: seq + 1])]
        start = max(end for end in ends if end <= max(0, one.frames_in - LIMITS.history_frames))
        assert one.resume_at == (start, phase_at(start) if start else None), "where samples ended, and no later"
        assert one.replay_from == max(0, start - LIMITS.lead_frames)
        assert replay[0].first_frame == one.replay_from and replay[-1].end_frame == one.frames_in
        assert all(a.end_frame == b.first_frame for a, b in itertools.pairwise(replay))
        assert one.kept_frames < LIMITS.history_frames + LIMITS.lead_frames + 2 * max(chunks)


def test_replay_starts_after_rendered_samples() -> None:
    one = utterance()
    one.take(mel_message(0, 0, 20), 1)
    for _ in range(12):
        render(one, 1)
    one.accept_pcm(pcm(12 * HOP, 1))
    one.forget(0)
    assert one.resume_at.frame == 12 - LIMITS.history_frames


def test_rendered_sample_was_due_when_the_engine_says() -> None:
    one = utterance()
    one.take(mel_message(0, 0, 20), 100)
    one.accept_pcm(pcm(0, 4 * HOP, t_due_ns=110))
    one.accept_pcm(pcm(4 * HOP, 4 * HOP, t_due_ns=120))
    assert [one.due_ns(sample) for sample in (0, 4 * HOP - 1, 4 * HOP, 8 * HOP - 1)] == [110, 110, 120, 120]
    one.forget(4 * HOP)
    assert one.due_ns(0) == 120, "what was delivered is not asked for any more"


def test_sample_not_rendered_is_due_with_a_whole_chunk() -> None:
    """LIMITS: chunks of two frames, one frame of look-ahead."""
    one = utterance()
    one.take(mel_message(0, 0, 2), 100)
    assert one.due_ns(0) is None, "the engine holds it back for a whole chunk"
    one.take(mel_message(1, 2, 1), 200)
    assert one.due_ns(0) == 200 and one.due_ns(HOP) is None
    one.end(wire.End("s", 0, 3), 5)
    assert one.due_ns(2 * HOP) == 200, "after the end no look-ahead is needed"


def test_refusal_beyond_limit_is_too_many() -> None:
    one = utterance()
    assert [one.refuse() for _ in range(MAX_REFUSALS + 1)] == [False] * MAX_REFUSALS + [True]


def test_mels_behind_a_refused_one_do_not_count() -> None:
    one = utterance()
    assert not any(one.refuse(mel_message(seq, seq, 1)) for seq in range(1, 60))
    assert one.refusals == 1
    one.take(mel_message(0, 0, 1), 1)
    assert not one.refuse(mel_message(5, 5, 1))
    assert one.refusals == 2
    assert not one.refuse(mel_message(5, 5, 1)), "the same again is another fault"
    assert one.refusals == 3


def test_refusal_after_accepted_frames_counts() -> None:
    one = utterance()
    assert not one.refuse(mel_message(0, 0, 1))
    one.take(mel_message(0, 0, 1), 1)
    assert not one.refuse(mel_message(5, 5, 1))
    assert one.refusals == 2
