"""What toolkits make of a sound, each written out from its own documented formula, with librosa's or numpy's means.

Nothing here uses glowd.flow.mel_formats: the tests compare the two. Frames are [n, bands].
"""

from typing import Any

import librosa
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RATE_HZ, N_FFT, HOP = 22050, 1024, 256


def magnitudes(sound: Any, fmin: float = 0.0, fmax: float = 8000.0, bands: int = 80, **bank: Any) -> Array:
    """Mel magnitudes [n, bands] of a centred STFT."""
    spectrum = np.abs(librosa.stft(sound.astype(np.float64), n_fft=N_FFT, hop_length=HOP, pad_mode="reflect"))
    filters = librosa.filters.mel(sr=RATE_HZ, n_fft=N_FFT, n_mels=bands, fmin=fmin, fmax=fmax, dtype=np.float64, **bank)
    made: Array = (filters @ spectrum).T
    return made


def tacotron2(sound: Any) -> Array:
    """dynamic_range_compression: log(clamp(x, min=1e-5))."""
    return np.log(np.maximum(magnitudes(sound), 1e-5))


def matcha_normalised(sound: Any) -> Array:
    """normalize(mel, mu=-5.537, std=2.116) of the same."""
    return (tacotron2(sound) - -5.537) / 2.116


def nemo(sound: Any) -> Array:
    """log(clamp(x, min=torch.finfo(float32).tiny))."""
    return np.log(np.maximum(magnitudes(sound), np.finfo(np.float32).tiny))


def coqui(sound: Any) -> Array:
    """spec_gain 1, log_func np.log: log(maximum(1e-8, x)), signal_norm false."""
    return np.log(np.maximum(magnitudes(sound), 1e-8))


def coqui_db(sound: Any, fmax: float = 8000.0) -> Array:
    """amp_to_db with gain 20 and log10; minus ref_level_db 20; (S + 100) / 100; symmetric, max_norm 4; clipped."""
    level = 20 * np.log10(np.maximum(1e-8, magnitudes(sound, fmax=fmax))) - 20
    unit = (level - -100) / 100
    made: Array = np.clip(2 * 4 * unit - 4, -4, 4)
    return made


def unit_db(sound: Any) -> Array:
    """The same, not symmetric, max_norm 1 (Deep Voice 3, WaveNet vocoder)."""
    level = 20 * np.log10(np.maximum(1e-5, magnitudes(sound))) - 20
    made: Array = np.clip((level - -100) / 100, 0, 1)
    return made


def log10_mel(sound: Any, fmin: float = 0.0, fmax: float = 8000.0) -> Array:
    """ESPnet and ParallelWaveGAN: log10(maximum(eps, x)) with eps = 1e-10."""
    return np.log10(np.maximum(1e-10, magnitudes(sound, fmin, fmax)))


def z_scored(mels: Array) -> tuple[Array, Array, Array]:
    """StandardScaler: (x - mean) / scale of each band; with mean and scale."""
    mean, scale = mels.mean(axis=0), mels.std(axis=0)
    return (mels - mean) / scale, mean, scale
