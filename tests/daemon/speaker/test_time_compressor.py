"""The time compressor: shorter speech at the same pitch, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.time_compressor import MAX_SHARE, TimeCompressor
from tests.harness.signals import RATE, noise, vowel

MUCH = 10**9


def compressed(source: Samples, excess: int = MUCH, chunk: int = 1024, rate_hz: int = RATE) -> tuple[Samples, int]:
    """What comes out, and how many samples were left out."""
    compressor, left = TimeCompressor(rate_hz), excess
    out: list[Samples] = []
    for begin in range(0, len(source), chunk):
        for piece in compressor.push(source[begin : begin + chunk], left, begin + chunk >= len(source)):
            out.append(piece.samples)
            left -= piece.skipped
    assert compressor.held == 0
    return np.concatenate(out), excess - left


@pytest.mark.parametrize("f0_hz", [80, 120, 220, 380])
@pytest.mark.parametrize("rate_hz", [8_000, RATE, 48_000])
def test_vowel_is_shortened_by_5_percent_at_its_pitch(f0_hz: int, rate_hz: int) -> None:
    source = vowel(4, f0_hz, rate_hz)
    heard, skipped = compressed(source, rate_hz=rate_hz)
    assert len(heard) == len(source) - skipped
    assert 0.8 * MAX_SHARE < skipped / len(source) <= MAX_SHARE
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * rate_hz / len(heard) == pytest.approx(f0_hz, abs=0.5)
    assert np.abs(np.diff(heard)).max() < 1.05 * np.abs(np.diff(source)).max(), "a splice is heard"


def test_pause_is_shortened_to_60_ms_and_the_words_are_kept() -> None:
    word = noise(RATE // 2)
    source = np.concatenate([word, np.zeros(RATE, np.float32), word])
    heard, skipped = compressed(source)
    loud = np.flatnonzero(heard)
    assert np.array_equal(heard[: len(word)], word) and np.array_equal(heard[-len(word) :], word)
    pause = np.diff(loud).max() / RATE
    assert 0.06 <= pause < 0.1 and skipped == len(source) - len(heard)


def test_no_more_is_left_out_than_is_asked_for() -> None:
    source = np.concatenate([vowel(1, 150), np.zeros(RATE, np.float32), vowel(1, 150)])
    heard, skipped = compressed(source, excess=RATE // 5)
    assert 0.18 * RATE < skipped <= 0.2 * RATE and len(heard) == len(source) - skipped


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=20))
def test_without_excess_samples_pass_at_once(sizes: list[int]) -> None:
    compressor = TimeCompressor(RATE)
    for size in sizes:
        source = noise(size)
        (piece,) = compressor.push(source, 0)
        assert piece.samples is source and piece.skipped == 0 and compressor.held == 0


def test_noise_has_no_period_and_is_left_alone() -> None:
    source = noise(3 * RATE)
    heard, skipped = compressed(source)
    assert skipped < 0.005 * len(source) and len(heard) == len(source) - skipped
