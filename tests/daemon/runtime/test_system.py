"""What the system says of this process, and what it is asked for."""

import mmap
import os
import threading

import pytest

from glowd.daemon.runtime.system import hurry, rss_bytes, usable_cores


def test_memory_is_that_of_this_process() -> None:
    before, size = rss_bytes(), 1 << 24
    with mmap.mmap(-1, size) as ballast:  # new pages for certain; an allocator may hand out old ones
        ballast.write(b"x" * size)
        after = rss_bytes()
    assert before is not None and after is not None
    assert after - before > 0.9 * size


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 7}, raising=False)
    assert usable_cores() == 3


def test_only_this_thread_is_hurried() -> None:
    before = os.sched_getscheduler(0)
    hurried = threading.Thread(target=hurry)
    hurried.start()
    hurried.join()
    assert os.sched_getscheduler(0) == before
