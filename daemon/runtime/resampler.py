"""Audio at another sample rate, while it arrives.

Rules: arithmetic only; soxr does the work. One object for one signal, from its first sample to its last.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

PROBE_S = 0.5


class Resampler:
    """A signal at `to_hz` instead of `from_hz`. The result does not depend on the chunks in which it is pushed.

    soxr has two engines. The usual one has a linear phase and a residue of -130 dB, and equals soxr.resample of the whole
    signal; it holds back 40 to 80 ms. With `low_latency` it is the variable-rate engine, which holds back 240 samples
    (11 ms at 22,050 Hz) where the rate rises, and has a residue of -115 dB.
    """

    def __init__(self, from_hz: int, to_hz: int, low_latency: bool = False) -> None:
        self.from_hz, self.to_hz = from_hz, to_hz
        self._stream = None
        if from_hz != to_hz:
            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ", vr=low_latency)

    @property
    def ratio(self) -> Fraction:
        """Samples out for each sample in."""
        return Fraction(self.to_hz, self.from_hz)

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Take samples [n]; return those at the new rate that are complete. `last`: nothing follows, return the rest."""
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled


@lru_cache(maxsize=64)
def latency_s(from_hz: int, to_hz: int, low_latency: bool = False) -> float:
    """The most that a Resampler holds back, in seconds, measured with chunks of 10 ms."""
    resampler, held_s, made = Resampler(from_hz, to_hz, low_latency), 0.0, 0
    chunk = np.zeros(from_hz // 100, np.float32)
    for fed in range(len(chunk), int(PROBE_S * from_hz), len(chunk)):
        made += len(resampler.push(chunk))
        held_s = max(held_s, fed / from_hz - made / to_hz)
    return held_s
