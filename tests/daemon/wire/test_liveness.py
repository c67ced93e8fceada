"""Only the time in which the watcher ran counts against a silent peer."""

import os
import signal
import subprocess
import sys
import time

import pytest

from glowd.daemon.wire.liveness import AwakeClock, Silence
from tests.harness.waiting import WAIT_S

SECOND_NS = 1_000_000_000


class Time:
    """A monotonic clock that is set by the test."""

    def __init__(self) -> None:
        self.ns = 5 * SECOND_NS

    def __call__(self) -> int:
        return self.ns

    def passes(self, seconds: float) -> None:
        self.ns += int(seconds * SECOND_NS)


def runs(clock: AwakeClock, now: Time, seconds: float, pass_s: float = 0.25) -> None:
    for _ in range(int(seconds / pass_s)):
        now.passes(pass_s)
        clock.read_ns()


def test_clock_of_running_loop_is_monotonic_clock() -> None:
    now = Time()
    clock = AwakeClock(1.0, now)
    runs(clock, now, 30)
    assert clock.read_ns() == now.ns and clock.absent_ns == 0


def test_absence_counts_as_one_pass() -> None:
    now = Time()
    clock = AwakeClock(0.5, now)
    before_ns = clock.read_ns()
    now.passes(3600)
    assert clock.read_ns() - before_ns == SECOND_NS // 2
    assert clock.absent_ns == int(3599.5 * SECOND_NS)


def test_silence_does_not_grow_while_watcher_is_absent() -> None:
    now = Time()
    clock = AwakeClock(1.0, now)
    silence = Silence(clock)
    runs(clock, now, 4)
    now.passes(22)
    assert silence.seconds == pytest.approx(5)
    silence.end()
    assert silence.seconds == 0


def test_silence_of_lost_peer_grows_after_absence() -> None:
    now = Time()
    clock = AwakeClock(1.0, now)
    silence = Silence(clock)
    now.passes(22)
    clock.read_ns()
    runs(clock, now, 20)
    assert silence.seconds == pytest.approx(21)


def test_loop_with_slow_passes_still_finds_lost_peer() -> None:
    """A loop that is always slower than it should be must not wait for ever."""
    now = Time()
    clock = AwakeClock(0.5, now)
    silence = Silence(clock)
    runs(clock, now, 100, pass_s=5)
    assert silence.seconds == pytest.approx(10)


@pytest.mark.process
def test_stopped_process_does_not_count_its_own_absence() -> None:
    script = (
        "import time\nfrom glowd.daemon.wire.liveness import AwakeClock, Silence\n"
        "clock = AwakeClock(0.2)\nsilence = Silence(clock)\nprint('on', flush=True)\n"
        "while not clock.absent_ns > 1e9: silence.seconds; time.sleep(0.02)\n"
        "print(silence.seconds, clock.absent_ns / 1e9, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "on\n"
            began_s = time.monotonic()
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(process.pid, signal.SIGCONT)
            silent_s, absent_s = map(float, process.stdout.readline().split())
            whole_s = time.monotonic() - began_s
        finally:
            process.kill()
        process.wait(WAIT_S)
    assert absent_s > 1 and silent_s < whole_s - 1
