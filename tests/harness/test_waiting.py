"""Stalls are measured; a test of time is repeated after a stall and only then, and not without end."""

import ctypes
import time

import pytest

from tests.harness.waiting import Stalls, measured, until

STOPPED_S = 0.3


def stop_for(seconds: float) -> None:
    """Stop all threads of this process: C sleeps while it holds Python's lock."""
    ctypes.PyDLL(None).usleep(round(1e6 * seconds))


def test_stall_is_measured_with_its_length() -> None:
    began_s = time.monotonic()
    with Stalls() as stalls:
        time.sleep(0.05)
        stop_for(STOPPED_S)
        time.sleep(0.05)
    assert STOPPED_S - 0.05 < stalls.longest_s <= stalls.lost_s < time.monotonic() - began_s


def test_stall_is_found_where_it_was_and_not_elsewhere() -> None:
    with Stalls() as stalls:
        time.sleep(0.3)
        began_s = time.monotonic()
        stop_for(STOPPED_S)
        ended_s = time.monotonic()
        time.sleep(0.05)
    middle_s = (began_s + ended_s) / 2
    for begin_s, end_s in ((began_s, ended_s), (middle_s, middle_s), (middle_s, ended_s + 5), (began_s - 5, middle_s)):
        assert stalls.longest_between(begin_s, end_s) > STOPPED_S - 0.05
    assert stalls.longest_between(ended_s + 1, ended_s + 5) == 0.0
    assert stalls.longest_between(began_s - 5, began_s - 0.2) < STOPPED_S - 0.05


def test_failure_during_a_stall_is_repeated() -> None:
    tries: list[float] = []

    def attempt() -> int:
        tries.append(STOPPED_S if len(tries) < 2 else 0.0)
        if tries[-1]:
            stop_for(tries[-1])
            raise AssertionError("late")
        return len(tries)

    assert measured(attempt) == 3


def test_failure_in_every_try_is_raised() -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        stop_for(0.1)
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong"):
        measured(attempt, tries=3)
    assert len(tries) == 3


def test_failure_without_a_stall_is_raised_at_once() -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong"):
        measured(attempt, stall_s=60)  # a machine may stall at any time
    assert len(tries) == 1


def test_wait_without_end_times_out() -> None:
    until(lambda: True)
    with pytest.raises(TimeoutError, match=r"nothing did not happen within 0\.02 s"):
        until(lambda: False, "nothing", 0.02)
