"""A signal whose speed changes while it plays: nothing is lost, nothing comes twice, and the map of samples is exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.variable_resampler import HELD, STEP, VariableResampler
from tests.harness.signals import noise

RATE = 22050
PPM = 1e-6


def sine(samples: NDArray[np.int64], f_hz: float) -> Samples:
    return (0.5 * np.sin(2 * np.pi * f_hz * samples / RATE)).astype(np.float32)


def snr_db(heard: Samples, at: NDArray[np.floating], f_hz: float) -> float:
    """Of a sine that was heard, whose samples are those of the source `at` fractional indices."""
    phase = 2 * np.pi * f_hz * at / RATE
    basis = np.stack([np.cos(phase), np.sin(phase)], 1)
    factors, *_ = np.linalg.lstsq(basis, heard.astype(np.float64), rcond=None)
    fit = basis @ factors
    return float(10 * np.log10(np.mean(fit**2) / np.mean((heard - fit) ** 2)))


def resample(source: Samples, chunk: int, speeds: list[float]) -> tuple[Samples, VariableResampler]:
    """The source in chunks, with the next of the speeds from time to time."""
    resampler, out = VariableResampler(RATE), []
    for number, begin in enumerate(range(0, len(source), chunk)):
        resampler.wanted_speed = speeds[min(number * len(speeds) * chunk // len(source), len(speeds) - 1)]
        out.append(resampler.push(source[begin : begin + chunk], begin + chunk >= len(source)))
    return np.concatenate(out), resampler


def test_samples_pass_unchanged_while_the_speed_is_one() -> None:
    resampler, source = VariableResampler(RATE), noise(5000)
    for begin in range(0, 5000, 500):
        chunk = source[begin : begin + 500]
        assert resampler.push(chunk, begin == 4500) is chunk and resampler.held == 0
    assert [resampler.source(played) for played in range(5001)] == list(range(5001))


@pytest.mark.parametrize("ppm", [500, -500, 1000])
@pytest.mark.parametrize("f_hz", [440.0, 3000.0, 8000.0])
def test_sine_stays_a_sine_of_the_faster_frequency(ppm: float, f_hz: float) -> None:
    speed = 1 + ppm * PPM
    heard, _ = resample(sine(np.arange(30 * RATE), f_hz), 1024, [1.0, speed, speed, speed, speed, speed])
    steady = np.arange(20 * RATE, 29 * RATE)  # the last change of speed is over
    assert snr_db(heard[steady], steady * speed, f_hz) > 110


@pytest.mark.parametrize("chunk", [64, 1000, 4096])
def test_phase_is_continuous_and_known_while_the_speed_moves(chunk: int) -> None:
    """From the first sample that was passed unchanged to the last: no click, no sample lost, none twice."""
    f_hz, source = 1000.0, sine(np.arange(30 * RATE), 1000.0)
    resampler, out, rng = VariableResampler(RATE), [], np.random.default_rng(1)
    for begin in range(0, len(source), chunk):
        if begin > 2 * RATE and rng.random() < chunk / RATE:
            resampler.wanted_speed = 1 + float(rng.uniform(-800, 800)) * PPM
        out.append(resampler.push(source[begin : begin + chunk], begin + chunk >= len(source)))
    heard = np.concatenate(out)
    at = np.array([resampler.source(sample) for sample in range(len(heard))])
    assert snr_db(heard[:-100], at[:-100], f_hz) > 110
    assert abs(np.diff(at) - 1).max() < 0.8e-3 and at[-1] == pytest.approx(len(source) - 1, abs=1)


def test_speed_moves_in_steps_that_nobody_hears() -> None:
    resampler, speeds = VariableResampler(RATE), []
    resampler.wanted_speed = 1.001
    for _ in range(12 * 50):
        resampler.push(noise(RATE // 50))
        speeds.append(resampler.speed)
    assert np.diff(speeds).max() <= STEP * 1.01 and speeds[-1] == 1.001
    assert speeds[-1] == speeds[10 * 50 + 5] > speeds[9 * 50]


@given(
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=40),
    speeds=st.lists(st.floats(0.999, 1.001), min_size=1, max_size=5),
    passed=st.integers(0, 300),
)
def test_every_sample_comes_out_once(sizes: list[int], speeds: list[float], passed: int) -> None:
    resampler, made, taken = VariableResampler(RATE), 0, passed
    made += len(resampler.push(noise(passed)))
    assert made == passed
    for number, size in enumerate(sizes):
        resampler.wanted_speed = speeds[number * len(speeds) // len(sizes)]
        taken += size
        made += len(resampler.push(noise(size), number == len(sizes) - 1))
        assert 0 <= resampler.held <= HELD
    at = [resampler.source(played) for played in range(made + 1)]
    assert resampler.held == 0 and taken <= at[-1] < taken + 1.001
    assert at[: passed + 1] == list(range(passed + 1))
    assert np.all(np.abs(np.diff(at) - 1) <= 1.001e-3)
