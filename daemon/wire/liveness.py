"""Whether a peer is still there, judged by a watcher that may not have been running itself.

Rules: standard library only, no I/O, no thread. Who waits for a sign of life uses this clock and no other: the gateway, the
supervisor, the speaker and both clients.

A watcher that was stopped (SIGSTOP, a debugger, a paused container), starved, or blocked by its own program has heard
nothing meanwhile, and that says nothing about its peers: what they sent waits in its sockets. So only the time counts in
which the watcher ran. Read the messages that have arrived first, then judge.

The clock underneath is CLOCK_MONOTONIC, which stands still while the machine is suspended. CLOCK_BOOTTIME and the time of
day go on, so they are of no use here. A virtual machine that is paused may see CLOCK_MONOTONIC jump: then the gap shows.
"""

import time
from collections.abc import Callable


class AwakeClock:
    """Nanoseconds in which its owner was running. Owner: one loop, which calls `read_ns` in every pass.

    Of the time between two calls at most `longest_pass_s` counts; the rest was an absence. Choose it longer than a pass
    of the loop takes, and much shorter than any silence that is judged by it.
    """

    def __init__(self, longest_pass_s: float = 1.0, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.absent_ns = 0
        """All absences so far, together."""
        self._longest_pass_ns, self._monotonic_ns = int(1e9 * longest_pass_s), monotonic_ns
        self._awake_ns = self._read_at_ns = monotonic_ns()

    def read_ns(self) -> int:
        """The time of this clock now. At first it is that of the monotonic clock; each absence sets it back."""
        now_ns = self._monotonic_ns()
        passed_ns = now_ns - self._read_at_ns
        counted_ns = min(passed_ns, self._longest_pass_ns)
        self._read_at_ns = now_ns
        self._awake_ns += counted_ns
        self.absent_ns += passed_ns - counted_ns
        return self._awake_ns


class Silence:
    """How long a peer has sent nothing, on the clock of who waits for it."""

    def __init__(self, clock: AwakeClock) -> None:
        self._clock, self._heard_ns = clock, clock.read_ns()

    def end(self) -> None:
        """The peer has sent something."""
        self._heard_ns = self._clock.read_ns()

    @property
    def seconds(self) -> float:
        """Seconds since then, without those in which the watcher was not running."""
        return (self._clock.read_ns() - self._heard_ns) / 1e9
