"""Which streams are served next, with how many frames, and whether they were late."""

import numpy as np

from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.engine.stream import Arrival, EngineStream
from tests.fakes.vocoder import MS, FakeVocoder


def stream_with(key: int, frames: int, at_ms: float = 0, started: bool = True, served_ns: int = 0) -> EngineStream:
    inner = FakeVocoder().open()
    inner.samples_out = 1 if started else 0
    stream = EngineStream(key, inner, served_ns=served_ns)
    if frames:
        inner.push(np.zeros((frames, 80), np.float32))
        stream.arrivals.append(Arrival(frames, 1, 2, int(at_ms * MS)))
    return stream


def scheduler(max_batch: int = 8) -> Scheduler:
    return Scheduler(FakeVocoder(), chunk_frames=4, max_chunk_frames=16, max_batch=max_batch, max_wait_ms=60)


def test_whole_chunk_is_due_and_less_waits() -> None:
    s = scheduler()
    assert s.next_batch([stream_with(1, 4)], 10 * MS) is None  # 3 ready, the fourth is look-ahead
    batch = s.next_batch([stream_with(1, 5)], 10 * MS)
    assert batch is not None and batch.frames == 4


def test_first_frames_and_the_end_do_not_wait() -> None:
    s = scheduler()
    first = s.next_batch([stream_with(1, 3, started=False)], 0)
    assert first is not None and first.frames == 2
    ending = stream_with(1, 3)
    ending.inner.end()
    last = s.next_batch([ending], 0)
    assert last is not None and last.frames == 3


def test_rest_of_a_stalled_client_is_due_after_max_wait() -> None:
    s, stalled = scheduler(), stream_with(1, 3, at_ms=100)
    assert s.wait_ns([stalled, stream_with(2, 1)], 130 * MS) == 30 * MS
    assert s.next_batch([stalled], 159 * MS) is None
    batch = s.next_batch([stalled], 160 * MS)
    assert batch is not None and batch.frames == 2
    assert s.wait_ns([stream_with(2, 1)], 0) is None


def test_single_stream_gets_large_chunks_and_several_do_not() -> None:
    s = scheduler()
    alone = s.next_batch([stream_with(1, 40)], 0)
    assert alone is not None and alone.frames == 16
    shared = s.next_batch([stream_with(1, 40), stream_with(2, 9)], 0)
    assert shared is not None and shared.frames == 4 and len(shared.streams) == 2


def test_batch_takes_the_longest_unserved_up_to_max_batch() -> None:
    s = scheduler(max_batch=2)
    streams = [stream_with(1, 9, served_ns=30), stream_with(2, 9, served_ns=10), stream_with(3, 9, served_ns=20)]
    batch = s.next_batch(streams, 0)
    assert batch is not None and [e.key for e in batch.streams] == [2, 3]


def test_larger_chunk_frames_wait_for_one_chunk_at_most() -> None:
    s = scheduler()
    s.use_chunk_frames(8)
    assert s.next_batch([stream_with(1, 8, at_ms=100)], 100 * MS) is None
    batch = s.next_batch([stream_with(1, 20), stream_with(2, 20)], 0)
    assert batch is not None and batch.frames == 8 and len(batch.streams) == 2
    assert s.wait_ns([stream_with(1, 8, at_ms=100)], 100 * MS) == s.chunk_ns == 8 * 256 * 1_000_000_000 // 22_050
    s.use_chunk_frames(4)
    assert s.wait_ns([stream_with(1, 3, at_ms=100)], 100 * MS) == 60 * MS


CHUNK_NS = 4 * 256 * 1_000_000_000 // 22_050


def served(s: Scheduler, e: EngineStream, end_ns: int) -> int:
    """How late the stream's next step was that was done at `end_ns`."""
    batch = s.next_batch([e], end_ns)
    assert batch is not None
    s.vocoder.step([e.inner], batch.frames)
    return s.advance_deadline(e, batch.frames, end_ns)


def arrive(e: EngineStream, frames: int, at_ns: int) -> None:
    e.inner.push(np.zeros((frames, 80), np.float32))
    e.arrivals.append(Arrival(e.inner.frames_in, 1, 2, at_ns))


def test_work_done_two_chunks_after_it_fell_due_is_late() -> None:
    s, e = scheduler(), stream_with(1, 5, at_ms=100)
    assert served(s, e, 100 * MS + 2 * CHUNK_NS) == 0
    arrive(e, 4, 500 * MS)
    assert served(s, e, 500 * MS + 2 * CHUNK_NS + 7) == 7
    arrive(e, 4, 500 * MS + CHUNK_NS)
    assert served(s, e, 500 * MS + 2 * CHUNK_NS) == -CHUNK_NS, "it has caught up"


def test_frames_sent_ahead_fall_due_chunk_by_chunk() -> None:
    s, e = scheduler(), stream_with(1, 9, at_ms=100)
    s.max_chunk_frames = 4
    assert served(s, e, 100 * MS) == -2 * CHUNK_NS
    assert served(s, e, 100 * MS + 3 * CHUNK_NS) == 0


def test_waiting_for_more_frames_or_the_end_is_not_late() -> None:
    s, e = scheduler(), stream_with(1, 5, at_ms=100)
    served(s, e, 100 * MS)
    arrive(e, 2, 1000 * MS)  # not a chunk, so it waits for 60 ms
    assert served(s, e, 1060 * MS) == -CHUNK_NS - CHUNK_NS // 2
    e.inner.end()
    e.ended_ns = 2000 * MS
    assert served(s, e, 2000 * MS) == -CHUNK_NS - CHUNK_NS // 4


def test_trigger_is_the_message_that_completed_the_chunk() -> None:
    e = stream_with(1, 4)
    e.inner.push(np.zeros((4, 80), np.float32))
    e.arrivals.append(Arrival(8, 11, 12, 13))
    e.inner.rendered(3, 768)
    trigger = e.trigger(look_ahead_frames=1)
    assert trigger is not None and trigger.end_frame == 4
    e.inner.rendered(4, 1024)
    trigger = e.trigger(look_ahead_frames=1)
    assert trigger is not None and trigger.client_ns == 11


def test_call_could_be_made_when_its_first_chunk_had_arrived() -> None:
    s, e = scheduler(), stream_with(1, 0)
    for end_frame, gateway_ms in ((5, 100), (9, 200), (17, 300)):
        e.inner.push(np.zeros((end_frame - e.inner.frames_in, 80), np.float32))
        e.arrivals.append(Arrival(end_frame, 0, gateway_ms * MS, 0))
    e.inner.rendered(16, 4096)
    assert s.due_ns(e, 16) == 100 * MS, "one call for all that had queued could have been four"
    e.trigger(look_ahead_frames=1)
    e.inner.push(np.zeros((2, 80), np.float32))
    e.arrivals.append(Arrival(19, 0, 400 * MS, 0))
    e.inner.rendered(2, 512)
    assert s.due_ns(e, 2) == 460 * MS, "less than a chunk waits for 60 ms"
    e.inner.end()
    e.ended_gateway_ns = 410 * MS
    e.inner.rendered(1, 256)
    assert s.due_ns(e, 1) == 410 * MS, "or for the end"
