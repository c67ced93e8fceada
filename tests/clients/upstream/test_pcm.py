"""Samples that arrive in blocks become frames; frames become those of a faster speech."""

import numpy as np
import pytest
import soxr

from glowd.clients.upstream.pcm import at_rate, mel_of_pcm
from glowd.flow.mel import Floats, log_mel
from tests.clients.upstream.speaking import WANTED
from tests.harness.mels import mel


def tone(rate_hz: int, samples: int) -> Floats:
    return (0.3 * np.sin(2 * np.pi * 440 / rate_hz * np.arange(samples))).astype(np.float32)


def blocks_of(samples: Floats, size: int) -> list[Floats]:
    return [samples[first : first + size] for first in range(0, len(samples), size)]


@pytest.mark.parametrize("size", [1, 100, 1000, 100_000])
def test_frames_do_not_depend_on_the_blocks(size: int) -> None:
    samples = tone(22050, 5000)
    made = np.concatenate(list(mel_of_pcm(blocks_of(samples, size), 22050, WANTED)))
    np.testing.assert_allclose(made, log_mel(samples), atol=1e-4)


def test_other_rate_is_resampled_as_a_whole() -> None:
    samples = tone(24000, 24000)
    made = np.concatenate(list(mel_of_pcm(blocks_of(samples, 777), 24000, WANTED)))
    wanted = log_mel(soxr.resample(samples, 24000, 22050))
    assert len(made) == len(wanted) and np.abs(made - wanted)[2:-2, 5:20].max() < 0.05


@pytest.mark.parametrize("samples", [0, 1, 512])
def test_too_short_speech_has_no_frames(samples: int) -> None:
    assert list(mel_of_pcm([tone(22050, samples)], 22050, WANTED)) == []


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.99, 1.0, 1.37, 2.0, 3.0])
@pytest.mark.parametrize("size", [1, 2, 7, 300])
def test_frames_at_a_rate_lie_on_the_lines_between(rate: float, size: int) -> None:
    ramp = np.repeat(np.arange(100, dtype=np.float32)[:, None], 4, axis=1)
    made = np.concatenate(list(at_rate(blocks_of(ramp, size), rate)))
    np.testing.assert_allclose(made[:, 0], np.arange(len(made)) * rate, atol=1e-3)
    assert len(made) == int(99 / rate) + 1


def test_own_rate_leaves_frames_as_they_are() -> None:
    frames = mel(20)
    np.testing.assert_array_equal(np.concatenate(list(at_rate([frames], 1.0))), frames)
