"""Mels for tests: made-up ones, and that of the bundled recording."""

from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from glowd.flow.mel import Floats, log_mel

SENTENCE = Path(__file__).parents[2] / "clients" / "demo_sentence.flac"


def mel(frames: int, value: float = -4.0, bins: int = 80) -> Floats:
    """Frames [frames, bins] with one value everywhere."""
    return np.full((frames, bins), value, np.float32)


def noise_mel(frames: int, seed: int = 0, bins: int = 80) -> Floats:
    """Frames [frames, bins], each different, the same for the same seed."""
    return np.random.default_rng(seed).uniform(-11, 2, (frames, bins)).astype(np.float32)


@cache
def speech() -> Floats:
    """Frames [L, 80] of the bundled recording."""
    audio, _ = soundfile.read(SENTENCE, dtype="float32")
    frames = log_mel(audio)
    frames.flags.writeable = False
    return frames
