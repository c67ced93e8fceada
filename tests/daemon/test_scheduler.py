"""Who is served next, and with how much."""

from collections.abc import Hashable, Sequence

import numpy as np

from daemon.scheduler import Arrival, Entry, Scheduler
from flow.mel import Floats, MelFormat
from flow.vocoder import Stream, Vocoder

MS = 1_000_000


class Toy(Vocoder):
    """One frame of look-ahead; frame f sounds as the number f."""

    def __init__(self) -> None:
        self.name, self.format, self.sigma = "toy", MelFormat(), 1.0
        self.look_ahead_frames, self.history_frames, self.latency_samples = 1, 4, 0

    def open(self, seed: int = 0, first_frame: int = 0, sigma: float | None = None) -> Stream:
        return Stream(seed, 1.0, 80, first_frame)

    def ready_frames(self, stream: Stream, limit: int) -> int | None:
        ready = stream.frames_in - stream.frames_done - (0 if stream.ended else 1)
        return min(limit, ready) if ready > 0 else None

    def key(self, stream: Stream, frames: int) -> Hashable:
        return frames

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        out = [np.repeat(np.arange(s.frames_done, s.frames_done + frames, dtype=np.float32), 256) for s in streams]
        for stream, samples in zip(streams, out):
            stream.rendered(frames, len(samples))
        return out


def entry(key: int, frames: int, at_ms: float = 0, started: bool = True, served_ns: int = 0) -> Entry:
    stream = Toy().open()
    stream.samples_out = 1 if started else 0
    made = Entry(key, stream, served_ns=served_ns)
    if frames:
        stream.push(np.zeros((frames, 80), np.float32))
        made.arrivals.append(Arrival(frames, 1, 2, int(at_ms * MS)))
    return made


def scheduler(max_batch: int = 8) -> Scheduler:
    return Scheduler(Toy(), chunk_frames=4, max_chunk_frames=16, max_batch=max_batch, max_wait_ms=60)


def test_a_whole_chunk_is_due_and_less_waits() -> None:
    s = scheduler()
    assert s.next_batch([entry(1, 4)], 10 * MS) is None  # 3 ready, the fourth is look-ahead
    batch = s.next_batch([entry(1, 5)], 10 * MS)
    assert batch is not None and batch.frames == 4


def test_first_frames_and_the_end_do_not_wait() -> None:
    s = scheduler()
    first = s.next_batch([entry(1, 3, started=False)], 0)
    assert first is not None and first.frames == 2
    ending = entry(1, 3)
    ending.stream.end()
    last = s.next_batch([ending], 0)
    assert last is not None and last.frames == 3


def test_a_rest_is_spoken_when_the_client_stalls() -> None:
    s, stalled = scheduler(), entry(1, 3, at_ms=100)
    assert s.wait_ns([stalled, entry(2, 1)], 130 * MS) == 30 * MS
    assert s.next_batch([stalled], 159 * MS) is None
    batch = s.next_batch([stalled], 160 * MS)
    assert batch is not None and batch.frames == 2
    assert s.wait_ns([entry(2, 1)], 0) is None


def test_alone_it_catches_up_in_company_it_does_not() -> None:
    s = scheduler()
    alone = s.next_batch([entry(1, 40)], 0)
    assert alone is not None and alone.frames == 16
    shared = s.next_batch([entry(1, 40), entry(2, 9)], 0)
    assert shared is not None and shared.frames == 4 and len(shared.entries) == 2


def test_longest_unserved_first_and_batches_are_bounded() -> None:
    s = scheduler(max_batch=2)
    entries = [entry(1, 9, served_ns=30), entry(2, 9, served_ns=10), entry(3, 9, served_ns=20)]
    batch = s.next_batch(entries, 0)
    assert batch is not None and [e.key for e in batch.entries] == [2, 3]


def test_the_trigger_is_the_message_that_completed_the_chunk() -> None:
    e = entry(1, 4)
    e.stream.push(np.zeros((4, 80), np.float32))
    e.arrivals.append(Arrival(8, 11, 12, 13))
    e.stream.rendered(3, 768)
    trigger = e.trigger(look_ahead_frames=1)
    assert trigger is not None and trigger.end_frame == 4
    e.stream.rendered(4, 1024)
    trigger = e.trigger(look_ahead_frames=1)
    assert trigger is not None and trigger.client_ns == 11
