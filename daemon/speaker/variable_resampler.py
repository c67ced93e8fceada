"""A signal at a speed that changes while it plays, by a few parts in a million at a time, and which sample became which.

Rules: arithmetic only; libsamplerate does the work. Speed is samples in for each sample out: above 1 there are fewer samples,
and they sound earlier. Until a speed other than 1 is asked for, samples pass unchanged and nothing is held back.
"""

import math
from collections import deque
from typing import NamedTuple

import numpy as np
import samplerate

from glowd.daemon.speaker.sample_queue import Samples

CONVERTER = "sinc_medium"
"""Residue below -120 dB; it passes 0.9 of the band."""
HELD = 48
"""The samples that it holds back, and one."""
HISTORY = 2 * HELD
STEP = 2e-6
STEPS_PER_S = 50
"""The speed moves by at most STEP so often: 100 parts in a million in a second."""


class Run(NamedTuple):
    """From output sample `begin` on, which is sample `source` of the input, the speed is `speed`."""

    begin: int
    source: float
    speed: float

    def at(self, sample: int) -> float:
        """Where in the input an output sample of this run is."""
        return self.source + (sample - self.begin) * self.speed


class VariableResampler:
    """A signal at nearly its own rate, from its first sample to its last. The result is phase-continuous."""

    def __init__(self, rate_hz: int) -> None:
        self.wanted_speed = 1.0
        """Where the speed moves to, with the samples that are pushed from now on."""
        self._block = max(1, rate_hz // STEPS_PER_S)
        self._taken = self._made = 0
        self._runs = deque([Run(0, 0.0, 1.0)])  # those that have not been played, in order
        self._history: Samples = np.zeros(0, np.float32)
        self._converter: samplerate.Resampler | None = None
        self._known = 0  # samples that come out again, because the converter began with the history

    @property
    def speed(self) -> float:
        """The speed at present."""
        return self._runs[-1].speed

    @property
    def held(self) -> int:
        """Samples that were pushed and have not come out, rounded down."""
        return max(0, math.floor(self._taken - self._runs[-1].at(self._made)))

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """Take samples [n]; return those that are complete. `last`: nothing follows, return the rest."""
        if self._converter is None and self.wanted_speed == 1:
            return self._pass_on(samples)
        converter = self._converter or self._start()
        parts = []
        while len(samples):
            size = len(samples) if self.speed == self.wanted_speed else self._block
            self._move_speed()
            parts.append(self._convert(converter, samples[:size]))
            samples = samples[size:]
        if last:
            parts.append(self._rest(converter))
        return np.concatenate([samples[:0], *parts])

    def source(self, played: int) -> float:
        """Where in the input, in its samples, output sample `played` is. `played` never decreases."""
        while len(self._runs) > 1 and self._runs[1].begin <= played:
            self._runs.popleft()
        return self._runs[0].at(played)

    def _pass_on(self, samples: Samples) -> Samples:
        self._history = np.concatenate([self._history, samples])[-HISTORY:]
        self._taken += len(samples)
        self._made += len(samples)
        return samples

    def _start(self) -> samplerate.Resampler:
        """Begin to convert, with what was passed on last: so the next sample is the one that would have been passed on."""
        self._converter = samplerate.Resampler(CONVERTER, channels=1)
        self._converter.set_ratio(1.0)
        again = self._converter.process(self._history, 1.0) if len(self._history) else self._history
        self._known = len(self._history) - len(again)
        return self._converter

    def _move_speed(self) -> None:
        step = min(STEP, max(-STEP, self.wanted_speed - self.speed))
        if step and not self._known:
            self._runs.append(Run(self._made, self._runs[-1].at(self._made), self.speed + step))

    def _rest(self, converter: samplerate.Resampler) -> Samples:
        """What the converter holds back."""
        missing = math.ceil((self._taken - self._runs[-1].at(self._made)) / self.speed)
        made, taken = self._made + missing, self._taken
        rest = self._convert(converter, np.zeros(2 * HELD, np.float32))
        self._made, self._taken = made, taken
        return rest[:missing]

    def _convert(self, converter: samplerate.Resampler, samples: Samples) -> Samples:
        converter.set_ratio(1 / self.speed)  # else it would move there within these samples
        made: Samples = converter.process(samples, 1 / self.speed)
        known = min(self._known, len(made))
        self._known -= known
        self._taken += len(samples)
        self._made += len(made) - known
        return made[known:]
