"""Signals to send through the speaker, and how to find them in a recording of it."""

import numpy as np

from glowd.daemon.speaker.sample_queue import Samples

RATE = 22050


def noise(samples: int, seed: int = 0, peak: float = 0.4) -> Samples:
    return np.random.default_rng(seed).uniform(-peak, peak, samples).astype(np.float32)


def tone(samples: int) -> Samples:
    """A 100 Hz tone of amplitude 0.5 that begins and ends softly: no step above 0.0145 anywhere."""
    soft = np.minimum(1, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / 300)
    return (0.5 * soft * np.cos(2 * np.pi * 100 / RATE * np.arange(samples))).astype(np.float32)


def speechlike(samples: int, seed: int = 0, peak: float = 0.7) -> Samples:
    """A chirp over noise, in syllables: like nothing else, and nowhere like itself a little later."""
    t_s = np.arange(samples) / RATE
    rng = np.random.default_rng(seed)
    chirp = np.sin(2 * np.pi * (150 + 300 * seed + 400 * t_s) * t_s)
    hiss = np.convolve(rng.standard_normal(samples), np.ones(4) / 4, "same")
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * (3 + seed) * t_s)
    signal = (chirp + 0.5 * hiss) * syllables
    return (peak * signal / np.abs(signal).max()).astype(np.float32)


def vowel(seconds: float, f0_hz: float, rate_hz: int = RATE) -> Samples:
    """A steady vowel: harmonics of f0_hz."""
    t_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return np.sum([0.3 / n * np.sin(2 * np.pi * n * f0_hz * t_s) for n in (1, 2, 3, 5)], axis=0).astype(np.float32)


def find(needle: Samples, heard: Samples) -> int:
    """Where in `heard` the needle begins: the lag of the highest cross-correlation."""
    size = 1 << (len(heard) + len(needle)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(needle, size))
    return int(np.argmax(np.fft.irfft(product, size)[: len(heard)]))


def correlation(one: Samples, two: Samples) -> float:
    """Of two signals of one length, 1.0 where they differ by a factor only."""
    return float(one @ two / np.sqrt((one @ one) * (two @ two)))
