"""Speech-like spectra, made and not recorded, on which the cost of a conversion is computed.

Rules: numpy only; the same numbers every time. Voiced frames are harmonics of a pitch under formants, unvoiced ones are
noise; both fall off towards high frequencies as speech does. They are few, because the gateway makes them while streams play,
and the seed is one with which the costs are near those of 60 recordings:

    bands                       recordings  probes
    0..11025 Hz                 1.5 dB      1.4 dB
    80..7600 Hz                 2.2         2.7
    HTK, 100 bands to 11025 Hz  1.4         1.2
    40 bands                    3.8         2.9
"""

from functools import lru_cache

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.mel_formats.banks import Array, bank_of
from glowd.flow.mel_formats.description import MelDescription

FRAMES, SEED = 12, 3
VOICED_SHARE = 0.25
FORMANTS_HZ = np.array([[250, 900], [800, 2500], [2000, 3500], [3200, 4800]])
FORMANT_WIDTH_HZ, TILT_DB_PER_OCTAVE, BREATH = 120.0, -9.0, 0.5


@lru_cache(maxsize=8)
def probe_magnitudes(rate_hz: int, n_fft: int, win: int) -> Array:
    """Magnitudes of the probes under a Hann window [FRAMES, n_fft / 2 + 1]."""
    random = np.random.default_rng(SEED)
    time_s = np.arange(n_fft) / rate_hz
    window = np.zeros(n_fft)
    left = (n_fft - win) // 2
    window[left : left + win] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    frames = [_frame(random, time_s, rate_hz, index < VOICED_SHARE * FRAMES) for index in range(FRAMES)]
    made: Array = np.abs(np.fft.rfft(np.stack(frames) * window))
    return made


def _frame(random: np.random.Generator, time_s: Array, rate_hz: int, voiced: bool) -> Array:
    """One frame of sound [n_fft]."""
    formants_hz: Array = random.uniform(FORMANTS_HZ[:, 0], FORMANTS_HZ[:, 1])
    tilt_db = TILT_DB_PER_OCTAVE * (1.0 if voiced else 0.3)
    level = 10 ** (random.uniform(-40, -15) / 20)
    bins_hz: Array = np.arange(len(time_s) // 2 + 1, dtype=np.float64) * (rate_hz / len(time_s))
    noise_spectrum = np.fft.rfft(random.standard_normal(len(time_s))) * _envelope(bins_hz, formants_hz, tilt_db)
    sound: Array = np.fft.irfft(noise_spectrum, len(time_s))
    if voiced:
        pitch_hz = 80 * 4 ** random.random()
        harmonics_hz: Array = pitch_hz * np.arange(1, int(rate_hz / 2 / pitch_hz) + 1, dtype=np.float64)
        phases = random.uniform(0, 2 * np.pi, len(harmonics_hz))
        tones = np.cos(2 * np.pi * time_s[:, None] * harmonics_hz + phases)
        sound = BREATH * sound + tones @ _envelope(harmonics_hz, formants_hz, tilt_db)
    return level * sound


def _envelope(hz: Array, formants_hz: Array, tilt_db: float) -> Array:
    """Magnitudes at some frequencies: formants, falling by `tilt_db` an octave."""
    peaks = 1 / (1 + ((hz[:, None] - formants_hz) / FORMANT_WIDTH_HZ) ** 2)
    made: Array = (0.1 + peaks.sum(axis=1)) * 10 ** (tilt_db / 20 * np.log2(np.maximum(hz, 100) / 100))
    return made


def probe_levels(mels: MelDescription) -> Floats:
    """The probes as natural logarithms of a description's magnitudes or energies [FRAMES, n_mels]."""
    spectra = probe_magnitudes(mels.rate_hz, mels.n_fft, mels.win) ** mels.power
    logs: Floats = np.log(np.maximum(spectra @ bank_of(mels).T, mels.log_floor)).astype(np.float32)
    return logs
