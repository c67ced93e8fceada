"""Speech made shorter without a change of pitch: pauses first, then whole periods of the voice.

Rules: arithmetic only; whether and how much is decided in catch_up.py.

The method is waveform-similarity overlap-add, WSOLA (Verhelst & Roelands, "An overlap-add technique based on waveform
similarity (WSOLA) for high quality time-scale modification of speech", ICASSP 1993): at a splice, the signal is
crossfaded into itself at the lag where the two are most alike, which in voiced speech is a period. Where they are not
alike (consonants), nothing is left out. Pauses are shortened by fixed lags, down to KEPT_PAUSE_MS each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glowd.daemon.speaker.sample_queue import Samples

MAX_SHARE = 0.05
"""The share of speech that may be left out."""
STEP_MS, FADE_MS = 10, 10
SHORTEST_LAG_MS, LONGEST_LAG_MS = 2.5, 15
"""Periods of voices from 400 to 67 Hz."""
ALIKE = 0.7
"""The least normalised cross-correlation at which a splice is not heard."""
KEPT_PAUSE_MS = 60
QUIET = 0.03
"""A pause is quieter than this share (-30 dB) of the loudest chunk of late."""
LOUDEST_DECAY = 0.995


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples [n] to play, and how many samples of the stream behind them are left out."""

    samples: Samples
    skipped: int = 0


class TimeCompressor:
    """Leaves out samples of one stream on demand. While nothing is to be left out, it holds back nothing."""

    def __init__(self, rate_hz: int) -> None:
        def in_samples(time_ms: float) -> int:
            return round(time_ms * rate_hz / 1000)

        self._step, self._fade = in_samples(STEP_MS), in_samples(FADE_MS)
        self._shortest, self._longest = in_samples(SHORTEST_LAG_MS), in_samples(LONGEST_LAG_MS)
        self._kept_pause = in_samples(KEPT_PAUSE_MS)
        self._window = np.linspace(0, 1, self._fade, endpoint=False, dtype=np.float32)
        self._held: Samples = np.zeros(0, np.float32)
        self._allowance = self._loudest = 0.0  # samples of speech that may be left out; RMS
        self._quiet = 0  # samples of the pause so far

    @property
    def held(self) -> int:
        """Samples that were pushed and have not come out."""
        return len(self._held)

    def push(self, samples: Samples, excess: int, last: bool = False) -> Iterator[Piece]:
        """Take samples [n]; return all but those held back, in order, with about `excess` left out if it can be done."""
        self._loudest = max(self._loudest * LOUDEST_DECAY, _rms(samples))
        left = np.concatenate([self._held, samples]) if self.held else samples
        while excess >= self._step and len(left) >= self._fade + self._longest + self._fade:
            piece, left = self._splice(left, excess)
            yield piece
            excess -= piece.skipped
        is_active = excess >= self._step and not last
        self._held = left if is_active else left[:0]
        if not is_active:
            yield Piece(left)

    def _splice(self, left: Samples, excess: int) -> tuple[Piece, Samples]:
        """The next piece of `left`, and what is left behind it."""
        if _rms(left[: self._step + self._fade]) < QUIET * self._loudest:
            return self._shorten_pause(left)
        self._quiet = 0
        self._allowance = min(self._allowance + MAX_SHARE * self._step, self._longest)
        lag = self._best_lag(left, min(excess, int(self._allowance)))
        if not lag:
            return Piece(left[: self._step]), left[self._step :]
        self._allowance -= lag * (1 - MAX_SHARE)  # what is left out was speech, too
        return Piece(self._crossfade(left, lag), lag), left[lag + self._fade :]

    def _shorten_pause(self, left: Samples) -> tuple[Piece, Samples]:
        """Let the first KEPT_PAUSE_MS of a pause pass. After that leave out STEP_MS, and keep the seam for the next step."""
        if self._quiet < self._kept_pause:
            self._quiet += self._step
            return Piece(left[: self._step]), left[self._step :]
        seam = self._crossfade(left, self._step)
        return Piece(left[:0], self._step), np.concatenate([seam, left[self._step + self._fade :]])

    def _crossfade(self, left: Samples, lag: int) -> Samples:
        """The first FADE_MS, faded into what comes `lag` later."""
        now, later = left[: self._fade], left[lag : lag + self._fade]
        return now + (later - now) * self._window

    def _best_lag(self, left: Samples, longest: int) -> int:
        """The lag at which the signal is most like itself, at most `longest`; 0 if it is nowhere alike."""
        if longest < self._longest * 2 // 3:  # wait until there is a choice
            return 0
        now, later = left[: self._fade].astype(np.float64), left[: longest + self._fade].astype(np.float64)
        energy = np.convolve(later**2, np.ones(self._fade), "valid")[self._shortest :]
        product = np.correlate(later, now, "valid")[self._shortest :]
        alike = product / np.sqrt(energy * (now @ now) + 1e-12)
        best = int(np.argmax(alike))
        return best + self._shortest if alike[best] >= ALIKE else 0


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
