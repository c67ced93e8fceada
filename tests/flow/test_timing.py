"""Timing: steady calls are measured, and first calls are not."""

import math
from collections.abc import Hashable, Sequence
from itertools import islice

import pytest

from glowd.flow.mel import Floats
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions
from glowd.flow.timing import calls, frames_per_call, speed, step_times
from glowd.flow.vocoder import BEGINNING, Origin, Stream
from tests.fakes.vocoder import FakeVocoder
from tests.harness.voices import random_voice, tiny


class Clocked(FakeVocoder):
    """Its first three calls are of a kind of their own and cheap; then each takes 0.1 s, and every tenth 1 s."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.steps, self.now_open = 0.0, 0, 0

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        self.now_open += 1
        return super().open(seed, origin, sigma)

    def close(self, stream: Stream) -> None:
        self.now_open -= 1

    def key(self, stream: Stream, frames: int) -> Hashable:
        return min(self.steps, 3)

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        self.steps += 1
        self.now_s += 0.01 if self.steps <= 3 else 1.0 if self.steps % 10 == 0 else 0.1
        return super().step(streams, frames)


def test_calls_of_a_filling_window_are_not_counted() -> None:
    vocoder = Clocked()
    timed = calls(vocoder, 4, 2, lambda: vocoder.now_s)
    found = list(islice(timed, 6))
    assert [call.steady for call in found] == [False, False, False, False, True, True]
    assert found[0].seconds == pytest.approx(0.01) and found[5].seconds == pytest.approx(0.1)
    assert vocoder.now_open == 2
    timed.close()  # type: ignore[attr-defined]
    assert vocoder.now_open == 0


def test_speed_is_that_of_steady_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = Clocked()
    monkeypatch.setattr("glowd.flow.timing.calls.__defaults__", (lambda: vocoder.now_s,))
    row = speed(vocoder, frames=4, batch=2, runs=100, warm_up=6)
    assert (row.chunk_frames, row.streams) == (4, 2) and vocoder.steps >= 4 + 6 + 100
    assert row.p50_ms == pytest.approx(100) and row.p99_ms == row.max_ms == pytest.approx(1000)
    assert row.rtf == pytest.approx(0.19 / (2 * 4 * 256 / 22_050))


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_zero_frames_streams_or_runs_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"(frames|streams|runs) is 0; allowed: at least 1"):
        speed(FakeVocoder(), *wrong)


def test_causal_and_other_voices_run_in_steady_chunks() -> None:
    exact = ExactVocoder(random_voice(tiny()), VocoderOptions(slots=2))
    overlapped = OverlapVocoder(random_voice(tiny(causal=False)), ChunkPlan(4, 12, 4, 256))
    assert [frames_per_call(vocoder, 18) for vocoder in (exact, overlapped)] == [18, 16]  # the plan's chunks, whole
    for vocoder in (exact, overlapped):
        times = step_times(vocoder, 4, 2, runs=3, warm_up=1)
        assert len(times) == 3 and all(0 < seconds < math.inf for seconds in times)
    exact.open(), exact.open()  # both slots are free again
