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


def cosyvoice2(sound: Any, fmax: float = 8000.0) -> Array:
    """CosyVoice 2 and Chatterbox at 24 kHz: HiFi-GAN's mel_spectrogram with n_fft 1920, hop 480, 80 bands, fmax 8000.

    pad(y, (n_fft - hop) / 2, reflect); stft(center=False); sqrt(re^2 + im^2); mel; log(clamp(x, min=1e-5)).
    """
    padded = np.pad(sound.astype(np.float64), (1920 - 480) // 2, mode="reflect")
    spectrum = np.abs(librosa.stft(padded, n_fft=1920, hop_length=480, center=False))
    filters = librosa.filters.mel(sr=24000, n_fft=1920, n_mels=80, fmin=0, fmax=fmax, dtype=np.float64)
    return np.log(np.maximum((filters @ spectrum).T, 1e-5))


def vocos(sound: Any) -> Array:
    """Vocos at 24 kHz: torchaudio's MelSpectrogram(24000, n_fft 1024, hop 256, 100 bands, center, power 1), so HTK without
    norm; log(clip(x, min=1e-7))."""
    spectrum = np.abs(librosa.stft(sound.astype(np.float64), n_fft=1024, hop_length=256, pad_mode="reflect"))
    filters = librosa.filters.mel(sr=24000, n_fft=1024, n_mels=100, htk=True, norm=None, dtype=np.float64)
    return np.log(np.maximum((filters @ spectrum).T, 1e-7))


def pwg_24k(sound: Any) -> Array:
    """ParallelWaveGAN at 24 kHz before its logarithm base 10: n_fft 2048, win 1200, hop 300, 80 to 7600 Hz; natural here."""
    spectrum = np.abs(
        librosa.stft(sound.astype(np.float64), n_fft=2048, hop_length=300, win_length=1200, pad_mode="reflect")
    )
    filters = librosa.filters.mel(sr=24000, n_fft=2048, n_mels=80, fmin=80, fmax=7600, dtype=np.float64)
    return np.log(np.maximum((filters @ spectrum).T, 1e-7))


def bigvgan_44k(sound: Any) -> Array:
    """BigVGAN v2 44khz_128band_512x: as HiFi-GAN, n_fft 2048, hop 512, 128 bands to 22050 Hz."""
    padded = np.pad(sound.astype(np.float64), (2048 - 512) // 2, mode="reflect")
    spectrum = np.abs(librosa.stft(padded, n_fft=2048, hop_length=512, center=False))
    filters = librosa.filters.mel(sr=44100, n_fft=2048, n_mels=128, fmin=0, fmax=22050, dtype=np.float64)
    return np.log(np.maximum((filters @ spectrum).T, 1e-5))


FRONT_ENDS = {"cosyvoice2": cosyvoice2, "vocos": vocos, "pwg-24k": pwg_24k, "bigvgan-44k": bigvgan_44k}
"""Front ends of other rates and framings, by the names of their presets; natural logarithms."""
