"""Waiting and measuring time on a machine that is slow, or that stalls for a moment.

A wait ends as soon as its condition holds, so every timeout is long. A test of time itself either subtracts how long this
process was stalled (`Stalls`), or is repeated when it was (`measured`).
"""

import functools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

WAIT_S = 60
"""The timeout for what an idle machine does at once: an answer, the start of a small process, its end."""
STALL_S = 0.01
"""An idle machine wakes a thread sooner than this."""

T = TypeVar("T")
P = ParamSpec("P")


def until(true: Callable[[], object], what: str = "it", timeout_s: float = WAIT_S, every_s: float = 0.005) -> None:
    """Wait until `true()`, which is asked every `every_s`. Raises TimeoutError."""
    until_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until_s:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(every_s)


class Stalls:
    """Within its `with`, measures how late a sleeping thread wakes, and so how late other threads may be."""

    def __init__(self) -> None:
        self.longest_s = self.lost_s = 0.0
        """The longest stall, and the sum of all stalls."""
        self.found: list[tuple[float, float]] = []
        """When each stall of STALL_S or more began and ended, on the monotonic clock."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self, nap_s: float = 0.005) -> None:
        before_s = time.monotonic()
        while not self._over.wait(nap_s):
            now_s = time.monotonic()
            late_s, before_s = now_s - before_s - nap_s, now_s
            self.longest_s, self.lost_s = max(self.longest_s, late_s), self.lost_s + late_s
            if late_s >= STALL_S:
                self.found.append((now_s - late_s, now_s))

    def longest_between(self, begin_s: float, end_s: float) -> float:
        """The longest stall that was there between two times, whole; 0.0 if there was none of STALL_S."""
        there = (end - begin for begin, end in self.found if begin <= end_s and end >= begin_s)
        return max(there, default=0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()


def measured(attempt: Callable[[], T], tries: int = 6, stall_s: float = STALL_S) -> T:
    """What `attempt` returns. If it fails and the machine stalled for `stall_s`, it is repeated, `tries` times in all."""
    for left in reversed(range(tries)):
        try:
            with Stalls() as stalls:
                return attempt()
        except (AssertionError, TimeoutError) as error:
            if not left or stalls.longest_s < stall_s:
                raise
            print(f"measured again after a stall of {stalls.longest_s:.3f} s: {error}")
    raise AssertionError("tries must be at least 1")


def repeated_after_stalls(test: Callable[P, None]) -> Callable[P, None]:
    """A test that is `measured` as a whole; it must leave its fixtures as it found them."""

    @functools.wraps(test)
    def run(*fixtures: P.args, **named: P.kwargs) -> None:
        measured(lambda: test(*fixtures, **named))

    return run
