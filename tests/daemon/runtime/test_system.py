"""What the operating system reports about this process, and what is requested from it."""

import gc
import mmap
import os
import threading

import pytest

from glowd.daemon.runtime.system import give_back_memory, request_realtime_priority, rss_bytes, usable_cores


def test_rss_grows_with_the_memory_of_this_process() -> None:
    before, size = rss_bytes(), 1 << 24
    with mmap.mmap(-1, size) as ballast:  # new pages for certain; an allocator may hand out old ones
        ballast.write(b"x" * size)
        after = rss_bytes()
    assert before is not None and after is not None
    assert after - before > 0.9 * size


def test_usable_cores_follow_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert usable_cores() == 3


def test_realtime_priority_is_for_the_calling_thread_only() -> None:
    before = os.sched_getscheduler(0)
    thread = threading.Thread(target=request_realtime_priority)
    thread.start()
    thread.join()
    assert os.sched_getscheduler(0) == before


def test_giving_memory_back_leaves_no_garbage() -> None:
    give_back_memory()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            give_back_memory()
        assert gc.collect() < 20, "garbage of the calls, which a process that seldom collects keeps"
    finally:
        gc.enable()
