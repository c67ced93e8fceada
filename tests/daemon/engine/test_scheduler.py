"""Who is served next, and with how much."""

from collections.abc import Hashable, Sequence

import numpy as np

from glowd.daemon.engine.scheduler import Arrival, Entry, Scheduler
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.vocoder import BEGINNING, Origin, Stream, Vocoder

MS = 1_000_000


class Toy(Vocoder):
    """One frame of look-ahead; frame f sounds as the number f."""

    def __init__(self) -> None:
        self.name, self.format, self.sigma = "toy", MelFormat(), 1.0
        self.look_ahead_frames, self.history_frames, self.latency_samples = 1, 4, 0

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        return Stream(seed, 1.0, 80, origin)

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


def test_a_degraded_scheduler_waits_for_larger_chunks_and_not_for_ever() -> None:
    s = scheduler()
    s.degrade(8)
    assert s.next_batch([entry(1, 8, at_ms=100)], 100 * MS) is None
    batch = s.next_batch([entry(1, 20), entry(2, 20)], 0)
    assert batch is not None and batch.frames == 8 and len(batch.entries) == 2
    assert s.wait_ns([entry(1, 8, at_ms=100)], 100 * MS) == s.chunk_ns == 8 * 256 * 1_000_000_000 // 22_050
    s.degrade(4)
    assert s.wait_ns([entry(1, 3, at_ms=100)], 100 * MS) == 60 * MS


CHUNK_NS = 4 * 256 * 1_000_000_000 // 22_050


def served(s: Scheduler, e: Entry, end_ns: int) -> int:
    """How late the stream's next step was that was done at `end_ns`."""
    batch = s.next_batch([e], end_ns)
    assert batch is not None
    s.vocoder.step([e.stream], batch.frames)
    return s.late_ns(e, batch.frames, end_ns)


def arrive(e: Entry, frames: int, at_ns: int) -> None:
    e.stream.push(np.zeros((frames, 80), np.float32))
    e.arrivals.append(Arrival(e.stream.frames_in, 1, 2, at_ns))


def test_late_is_what_is_done_more_than_two_chunks_after_it_fell_due() -> None:
    s, e = scheduler(), entry(1, 5, at_ms=100)
    assert served(s, e, 100 * MS + 2 * CHUNK_NS) == 0
    arrive(e, 4, 500 * MS)
    assert served(s, e, 500 * MS + 2 * CHUNK_NS + 7) == 7
    arrive(e, 4, 500 * MS + CHUNK_NS)
    assert served(s, e, 500 * MS + 2 * CHUNK_NS) == -CHUNK_NS, "it has caught up"


def test_frames_sent_ahead_are_due_one_chunk_after_the_other() -> None:
    s, e = scheduler(), entry(1, 9, at_ms=100)
    s.max_chunk_frames = 4
    assert served(s, e, 100 * MS) == -2 * CHUNK_NS
    assert served(s, e, 100 * MS + 3 * CHUNK_NS) == 0


def test_what_waited_for_more_or_for_the_end_is_not_late_for_that() -> None:
    s, e = scheduler(), entry(1, 5, at_ms=100)
    served(s, e, 100 * MS)
    arrive(e, 2, 1000 * MS)  # not a chunk, so it waits for 60 ms
    assert served(s, e, 1060 * MS) == -CHUNK_NS - CHUNK_NS // 2
    e.stream.end()
    e.ended_ns = 2000 * MS
    assert served(s, e, 2000 * MS) == -CHUNK_NS - CHUNK_NS // 4


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
