"""Speech-like recordings for tests: gliding harmonics under a moving envelope, with pauses and a little breath."""

from pathlib import Path

import numpy as np
import soundfile

from glowd.flow.mel import Floats


def voice_like(seconds: float, seed: int, rate_hz: int = 22050) -> Floats:
    """Samples [T], peak 0.5, reproducible."""
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    phase = np.cumsum(2 * np.pi * (140 + 30 * np.sin(2 * np.pi * 1.3 * t + seed)) / rate_hz)
    tones = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3 * t + seed), 0, None)
    wave = tones * syllables + 0.01 * random.standard_normal(len(t))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def write_recordings(folder: Path, count: int = 4, seconds: float = 1.0, first_seed: int = 0) -> Path:
    """`count` FLAC clips in a new folder."""
    folder.mkdir(parents=True)
    for i in range(count):
        soundfile.write(folder / f"clip{i}.flac", voice_like(seconds, first_seed + i), 22050)
    return folder
