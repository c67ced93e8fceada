"""The load of a day: when streams are opened and how long they stay, drawn from a seed.

Rules: numpy only. Streams come independently of one another (a Poisson process with a rate that changes over the day); how
long a stream stays open is lognormal, as lengths of calls and of sessions are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600.0
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak of a day: at `at_h`, `height` times the base, with a standard deviation of `width_h`."""

    at_h: float
    height: float
    width_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of load. The defaults: a base, a peak in the morning and a higher one in the evening."""

    streams: int = 50_000
    seconds: float = 24 * HOUR_S
    stream_s: float = 780.0
    """Mean time for which a stream is open."""
    spread: float = 0.8
    """Standard deviation of its logarithm."""
    peaks: tuple[Peak, ...] = (Peak(10.5, 4.0, 1.8), Peak(20.0, 5.0, 1.4))
    utterance_s: float = 6.0
    speaking: float = 0.5
    """Share of the time of a stream in which it has an utterance."""

    def rate(self, at_s: Times) -> Times:
        """Streams per second at these times of the day."""
        hours = at_s / HOUR_S
        shape = 1.0 + sum((peak.height * np.exp(-0.5 * ((hours - peak.at_h) / peak.width_h) ** 2) for peak in self.peaks),
                          np.zeros_like(hours))  # fmt: skip
        return shape / self._mean_shape() * self.streams / self.seconds

    def _mean_shape(self) -> float:
        hours = np.arange(0.0, self.seconds, 60.0) / HOUR_S
        return 1.0 + sum(
            float(np.mean(peak.height * np.exp(-0.5 * ((hours - peak.at_h) / peak.width_h) ** 2)))
            for peak in self.peaks
        )

    def draw(self, rng: np.random.Generator) -> tuple[Times, Times]:
        """When each stream is opened, in order, and for how many seconds it is open."""
        edges = np.arange(0.0, self.seconds + 1.0, 60.0)
        counts = rng.poisson(self.rate(edges[:-1]) * 60.0)
        opened = np.sort(np.repeat(edges[:-1], counts) + rng.uniform(0.0, 60.0, int(counts.sum())))
        return opened, self.lengths(rng, len(opened))

    def lengths(self, rng: np.random.Generator, count: int) -> Times:
        """For how long so many streams are open."""
        middle = np.log(self.stream_s) - self.spread**2 / 2
        return rng.lognormal(middle, self.spread, count)
