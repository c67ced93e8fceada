"""When a sample sounds, from reports of a device that come by its periods, or by those of a sound server."""

from collections.abc import Iterator

import numpy as np
import pytest

from glowd.daemon.speaker.clock import DeviceClock

RATE, BLOCK = 22_050, 220
DELAY_S, SETTLES_S = 0.2, 4.0


def reports(seconds: float, late: float, seed: int = 0, ppm: float = 0.0) -> Iterator[tuple[float, int, int]]:
    """(the time, a sample, when it sounds as the device says). So many of its requests are 40 ms `late`.

    As PulseAudio was measured: it asks after 60 and after 40 ms in turn, each time for what 50 ms take.
    """
    rng, sample, rate_hz = np.random.default_rng(seed), 0, RATE * (1 + ppm * 1e-6)
    while (due_s := sample / rate_hz) < seconds:
        lateness_s = 0.01 * (round(due_s / 0.05) % 2) + 0.04 * (rng.random() < late) + 0.0005 * rng.random()
        for _ in range(5):
            sample += BLOCK
            yield due_s, sample, round(1e9 * (sample / rate_hz + DELAY_S + lateness_s))


def errors_ms(clock: DeviceClock, found: Iterator[tuple[float, int, int]], ppm: float = 0.0) -> np.ndarray:
    """By how much later the clock says that samples sound than they do; the first seconds are left out."""
    errors = []
    for at_s, sample, t_ns in found:
        assert clock.update(sample, t_ns) == 0
        if at_s > SETTLES_S:
            errors.append(clock.ns(sample) / 1e6 - 1e3 * (sample / RATE / (1 + ppm * 1e-6) + DELAY_S))
    return np.array(errors)


@pytest.fixture
def clock() -> DeviceClock:
    found = DeviceClock(RATE, round(1e9 * DELAY_S))
    found.expect(1000 * DELAY_S)
    return found


@pytest.mark.parametrize("late", [0.0, 0.02, 0.1])
def test_late_reports_do_not_move_the_clock(clock: DeviceClock, late: float) -> None:
    off_ms = errors_ms(clock, reports(60, late))
    assert np.ptp(off_ms) < 0.3 and np.abs(off_ms).max() < 0.5


@pytest.mark.parametrize("ppm", [300, -300])
def test_device_whose_clock_differs_is_followed(clock: DeviceClock, ppm: float) -> None:
    off_ms = errors_ms(clock, reports(60, 0.02, ppm=ppm), ppm)
    assert np.ptp(off_ms) < 0.8 and np.abs(off_ms).max() < 2


def test_first_reports_that_are_early_do_not_count(clock: DeviceClock) -> None:
    """As those of PulseAudio while it fills its buffer."""
    found = reports(60, 0.02)
    early = ((at_s, sample, t_ns - 28_000_000 * (at_s < 0.3)) for at_s, sample, t_ns in found)
    assert np.abs(errors_ms(clock, early)).max() < 0.5


def test_single_report_that_is_early_does_not_move_it(clock: DeviceClock) -> None:
    early = (
        (at_s, sample, t_ns - 30_000_000 * (number % 997 == 0))
        for number, (at_s, sample, t_ns) in enumerate(reports(60, 0.02))
    )
    assert np.ptp(errors_ms(clock, early)) < 0.5
