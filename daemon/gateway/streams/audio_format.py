"""Audio as a client asked for it: the samples of an utterance at another rate, or as 16-bit integers.

Rules: arithmetic only, no socket. A receiver that asked for nothing gets the voice's own samples, bit by bit.
"""

from dataclasses import dataclass, replace

import numpy as np

from glowd.daemon import wire
from glowd.daemon.runtime.resampler import Resampler, latency_s


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """What a receiver asked for. `rate_hz` 0: the voice's own."""

    rate_hz: int = 0
    dtype: str = "f32"

    def latency_ms(self, voice_hz: int) -> float:
        """How much later than the voice's own samples those of this format are sent."""
        return round(1000 * latency_s(voice_hz, self.rate_hz or voice_hz), 1)


class AudioConverter:
    """Turns the audio messages of one stream into the format of one receiver, which may join late.

    Indices count samples of the new rate: sample n of the voice is sample n * rate / voice rate, rounded down. Each
    utterance is converted by itself.
    """

    def __init__(self, wanted: AudioFormat) -> None:
        self.wanted, self._is_plain = wanted, wanted == AudioFormat()
        self._generation, self._next_sample, self._latency_ms = -1, 0, 0.0
        self._resampler = Resampler(1, 1)

    def convert(self, audio: wire.Audio) -> wire.Audio:
        """The message with the next samples. It may have none: the resampler holds some back."""
        if self._is_plain:
            return audio
        rate_hz = self.wanted.rate_hz or audio.rate_hz
        if audio.generation != self._generation:
            self._generation = audio.generation
            self._resampler, self._latency_ms = Resampler(audio.rate_hz, rate_hz), self.wanted.latency_ms(audio.rate_hz)
            self._next_sample = audio.first_sample * rate_hz // audio.rate_hz
        samples = self._resampler.push(np.asarray(audio.payload), audio.last)
        first_sample, self._next_sample = self._next_sample, self._next_sample + len(samples)
        return replace(
            audio,
            first_sample=first_sample,
            samples=len(samples),
            rate_hz=rate_hz,
            dtype=self.wanted.dtype,
            latency_ms=self._latency_ms,
            payload=samples,
        )
