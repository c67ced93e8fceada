"""A value that moves smoothly: gains, and the level of a stream that is faded in or out.

Rules: arithmetic only.
"""

import math

import numpy as np

from glowd.daemon.speaker.sample_queue import Samples


class Ramp:
    """A value that moves to its target along a raised cosine: without a step, and without a kink at either end."""

    def __init__(self, value: float) -> None:
        self._start = self._target = value
        self._steps = self._done = 0

    @property
    def value(self) -> float:
        """The value that was taken last."""
        if self._done >= self._steps:
            return self._target
        share = self._done / (self._steps + 1)
        return self._start + (self._target - self._start) * (0.5 - 0.5 * math.cos(math.pi * share))

    @property
    def steps_left(self) -> int:
        """Samples until the target is reached."""
        return self._steps - self._done

    def move_to(self, target: float, steps: int) -> None:
        """Move from the present value to `target` within `steps` samples."""
        self._start, self._target, self._steps, self._done = self.value, target, steps, 0

    def take(self, samples: int) -> float | Samples:
        """The next `samples` values: one float if the value does not move, else [samples]."""
        if self.steps_left == 0:
            return self._target
        steps = np.arange(self._done, self._done + samples)
        self._done = min(self._done + samples, self._steps)
        share = np.minimum((steps + 1) / (self._steps + 1), 1)
        values = self._start + (self._target - self._start) * (0.5 - 0.5 * np.cos(np.pi * share))
        values[steps >= self._steps] = self._target
        return values.astype(np.float32)
