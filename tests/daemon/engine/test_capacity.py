"""How many streams a voice can keep up with: the search, and the measurement of voices of known speed."""

import math
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon.engine import capacity, overhead
from glowd.daemon.wire.telemetry import Capacity
from glowd.flow.mel import Floats
from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder
from glowd.flow.vocoder import BEGINNING, Origin, Stream
from tests.fakes.vocoder import FakeVocoder


def linear(fixed: float, each: float) -> Callable[[int], float]:
    """A call costs `fixed`, and `each` for each stream in it."""
    return lambda streams: fixed + each * streams


@given(
    st.integers(0, 50), st.integers(1, 20), st.integers(0, 2000), st.integers(1, 40)
)  # integers: sums of floats would differ in their last digit
def test_search_finds_the_largest_number_whose_round_fits(fixed: int, each: int, budget: int, max_batch: int) -> None:
    step_s = linear(fixed, each)
    found = capacity.streams_within(step_s, budget, max_batch)
    assert found == 0 or capacity.round_s(step_s, found, max_batch) <= budget
    assert capacity.round_s(step_s, found + 1, max_batch) > budget


def test_search_tries_few_sizes() -> None:
    asked: list[int] = []

    def step_s(batch: int) -> float:
        asked.append(batch)
        return batch * 1.0

    assert capacity.streams_within(step_s, 300.5, 512) == 300
    assert len(set(asked)) <= 2 * 9 + 1


def test_sizes_that_were_not_measured_do_not_count() -> None:
    assert capacity.streams_within(lambda batch: 0.001 if batch <= 4 else math.inf, 1.0, 16) == 4


class Slow(FakeVocoder):
    """A call takes `fixed_s`, and `each_s` for each stream, on a clock of its own; counts what is open."""

    def __init__(self, fixed_s: float, each_s: float, sleep_s: float = 0.0) -> None:
        super().__init__()
        self.fixed_s, self.each_s, self.sleep_s, self.now_s, self.now_open = fixed_s, each_s, sleep_s, 0.0, 0

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        self.now_open += 1
        return super().open(seed, origin, sigma)

    def close(self, stream: Stream) -> None:
        self.now_open -= 1

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        time.sleep(self.sleep_s)
        self.now_s += self.fixed_s + self.each_s * len(streams)
        return super().step(streams, frames)

    def capacity(self, chunk_frames: int = 4, max_batch: int = 16) -> Capacity | None:
        return capacity.find_capacity(self, 0, chunk_frames, max_batch, lambda: self.now_s)


def test_voice_of_known_speed_is_measured_and_closed() -> None:
    slow = Slow(0.004, 0.004)  # 4.8 streams fit into half of 46.4 ms
    found = slow.capacity()
    assert found is not None
    assert found.to_map() == {
        "streams": 4, "measured": True, "share": 0.5, "chunk_ms": 46.44, "alone_ms": 8.0, "round_ms": 20.0
    }  # fmt: skip
    assert slow.now_open == 0


def test_round_of_several_batches_counts() -> None:
    found = Slow(0.004, 0.004).capacity(chunk_frames=16, max_batch=2)  # 93 ms: seven calls of 12 ms and one of 8
    assert found is not None and found.streams == 15 and found.round_ms == pytest.approx(92)


def test_voice_too_slow_for_one_stream_serves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LIMIT_S", 0.2)
    slow, warm = Slow(0.3, 0, sleep_s=0.3), Slow(0.3, 0)
    warm.warm_up(1, 4)
    found = slow.capacity()
    assert found is not None and (found.streams, found.alone_ms) == (1, None), "its first call took all the time"
    assert slow.now_s == pytest.approx(warm.now_s + 0.3) and slow.now_open == 0, "and there was no second one"


def test_processor_time_leaves_out_other_programs() -> None:
    class Stolen(FakeVocoder):
        def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
            time.sleep(0.05)  # more than a chunk
            return super().step(streams, frames)

    stolen = Stolen()
    found = capacity.find_capacity(stolen, 0, 4, 1, time.thread_time)
    assert found is not None and found.streams > 1
    assert capacity.is_single_threaded(stolen, threads=1) and not capacity.is_single_threaded(stolen, threads=2)
    stolen.device = "cuda:0"  # type: ignore[attr-defined]
    assert not capacity.is_single_threaded(stolen, threads=1)
    found = capacity.find_capacity(stolen, 0, 4, 1)
    assert found is not None and found.streams == 1 and found.alone_ms is not None and found.alone_ms >= 50


def test_work_beside_the_network_takes_capacity() -> None:
    """A GPU whose calls take 1.5 ms and 8 us for each stream is not what a process runs out of that needs 45 us for each."""
    gpu = Slow(0.0015, 8e-6)
    without = capacity.find_capacity(gpu, 0, 4, 32, lambda: gpu.now_s)
    found = capacity.find_capacity(gpu, 0, 4, 32, lambda: gpu.now_s, overhead_s=45e-6)
    assert without is not None and found is not None
    assert without.streams > 400 and 200 < found.streams < 240
    assert found.round_ms is not None and 22 < found.round_ms < 23.22


def test_overhead_is_that_of_messages_and_scheduler() -> None:
    """Of the processor's time; on any machine some microseconds at least, and less than a chunk at most."""
    found = overhead.seconds_per_chunk(FakeVocoder(), 4)
    assert 2e-6 < found < 5e-3
    ticks = iter(range(100))
    assert overhead.seconds_per_chunk(FakeVocoder(), 4, lambda: float(next(ticks)), streams=4) == 0.25


def test_configured_capacity_is_not_measured() -> None:
    assert capacity.find_capacity(Slow(9, 9), 5, 4, 16) == Capacity(streams=5, measured=False)
    assert capacity.find_capacity(GriffinLimVocoder(), 0, 4, 16) is None
    assert capacity.find_capacity(GriffinLimVocoder(), 2, 4, 16) == Capacity(streams=2, measured=False)


class Compiles(Slow):
    """Its first call takes longer than the whole measurement may."""

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        if self.now_s == 0.0:
            time.sleep(0.3)
        return super().step(streams, frames)


def test_first_call_that_compiles_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LIMIT_S", 0.25)
    found = Compiles(0.0, 0.001).capacity()
    assert found is not None and found.streams > 1 and found.alone_ms == 1.0
