"""The gateway's clock: every time by which it judges a silence is read here.

Rules: no other file of the gateway reads a clock (tests/test_architecture.py); time is passed in. A gateway that was stopped
in the middle of a pass would else find, with a time of its own, that all its peers have been silent.
"""

import time
from collections.abc import Callable

LONGEST_PASS_NS = 500_000_000
"""A longer time between two readings is an absence, of which the peers are not guilty."""

Excuse = Callable[[int, int], object]
"""Called with when an absence began and its length, both in ns, before the time after it is used."""


class GatewayClock:
    """The monotonic clock. Owner: the gateway's only thread, which reads it several times in each pass of its loop."""

    def __init__(self, excuse: Excuse, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._excuse, self._monotonic_ns = excuse, monotonic_ns
        self._read_ns = monotonic_ns()

    def now_ns(self) -> int:
        """The time now. If this process did not run since the last call, that is held against nobody."""
        began_ns, now_ns = self._read_ns, self._monotonic_ns()
        if now_ns - began_ns > LONGEST_PASS_NS:
            self._excuse(began_ns, now_ns - began_ns - LONGEST_PASS_NS)
        self._read_ns = now_ns
        return now_ns
