"""The voice that ships stays in range on mels that no speech has: other scales, music, noise, nonsense."""

from collections.abc import Callable

import numpy as np
import pytest

from glowd.flow.checkpoint import load
from glowd.flow.mel import Floats, log_mel
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.mels import speech

FRAMES = 100
VOCODER = ExactVocoder(load("embedded"), VocoderOptions(slots=1))
RANDOM = np.random.default_rng(0)
SPEECH = speech()[:FRAMES]
TIME_S = np.arange(FRAMES * 256) / 22_050


def chord(level: float) -> Floats:
    tones = sum(np.sin(2 * np.pi * hz * TIME_S) for hz in (110, 220, 277, 330, 440, 880, 1760))
    return log_mel(np.clip(level * np.asarray(tones), -1, 1).astype(np.float32))


STRANGE: dict[str, Callable[[], np.ndarray]] = {
    "noise as speech": lambda: RANDOM.normal(-5.6, 2.1, (FRAMES, 80)),
    "noise over the range": lambda: RANDOM.uniform(-11.5, 2.5, (FRAMES, 80)),
    "noise beyond it": lambda: RANDOM.uniform(-1e4, 1e4, (FRAMES, 80)),
    "white noise": lambda: log_mel(RANDOM.uniform(-1, 1, FRAMES * 256).astype(np.float32)),
    "a chord": lambda: chord(0.14),
    "a chord that is cut": lambda: chord(10.0),
    "drums": lambda: log_mel((0.3 * RANDOM.standard_normal(len(TIME_S)) * np.exp(-(4 * TIME_S % 1) * 12)).astype("f4")),
    "log10": lambda: SPEECH / np.log(10),
    "dB": lambda: 20 * SPEECH / np.log(10),
    "z-scores": lambda: (SPEECH - SPEECH.mean(0)) / SPEECH.std(0),
    "0 to 1": lambda: (SPEECH + 11.5) / 14,
    "-4 to 4": lambda: 8 * (SPEECH + 11.5) / 14 - 4,
    "zeros": lambda: np.zeros((FRAMES, 80)),
    "the floor": lambda: np.full((FRAMES, 80), -11.5),
    "the ceiling": lambda: np.full((FRAMES, 80), 2.5),
    "far beyond it": lambda: np.full((FRAMES, 80), 3e38),
    "steps": lambda: np.where(np.arange(FRAMES)[:, None] // 10 % 2, 2.5, -11.5) * np.ones((1, 80)),
    "one frame in twenty": lambda: np.where(np.arange(FRAMES)[:, None] % 20, -11.5, 2.5) * np.ones((1, 80)),
    "a ramp": lambda: np.linspace(-11.5, 2.5, 80) * np.ones((FRAMES, 1)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_no_mel_is_louder_than_full_scale(name: str) -> None:
    audio = render(VOCODER, STRANGE[name]().astype(np.float32)[:FRAMES], 1)
    assert len(audio) == FRAMES * 256 and np.isfinite(audio).all() and np.abs(audio).max() <= 1


def test_speech_is_not_touched_by_what_bounds_the_rest() -> None:
    assert 0.1 < np.abs(render(VOCODER, SPEECH, 1)).max() < 0.9
