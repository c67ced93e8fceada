"""The time of a step of an engine, from its figures, and the capacity that the daemon would measure with it."""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

from glowd.daemon.engine.capacity import SHARE, round_s, streams_within
from glowd.daemon.wire.telemetry import Capacity
from tests.bench.simulation.inputs import CHUNK_FRAMES, HOP, RATE_HZ, EngineFigures


class CostCurve:
    """Seconds of a step, by batch and frames."""

    def __init__(self, figures: EngineFigures) -> None:
        self.figures = figures
        self.step_s = cache(self._step_s)

    def _step_s(self, batch: int, frames: int = CHUNK_FRAMES) -> float:
        """A step for `batch` streams with `frames` each: straight lines between what was measured."""
        by_batch, alone = self.figures.batch_ms, self.figures.alone_ms
        rest_ms = (_between(by_batch, batch) - by_batch[1]) * frames / CHUNK_FRAMES
        return (_between(alone, frames) + rest_ms) / 1000

    def busy_s(self, batch: int, frames: int) -> float:
        """The same, with what the engine process does around it."""
        return self.step_s(batch, frames) + batch * self.figures.host_us / 1e6

    def capacity(self, share: float = SHARE) -> Capacity:
        """What daemon/engine/capacity.py finds with these times."""
        chunk_s, most = CHUNK_FRAMES * HOP / RATE_HZ, self.figures.max_batch
        streams = max(1, streams_within(self.step_s, share * chunk_s, most))
        took_s = round_s(self.step_s, streams, most)
        return Capacity(
            streams=streams, measured=True, share=share, chunk_ms=1000 * chunk_s, alone_ms=1000 * self.step_s(1),
            round_ms=1000 * took_s,
        )  # fmt: skip


def _between(points: Mapping[int, float], x: int) -> float:
    """The line through the two points around x; beyond the last, that of the last two."""
    xs = sorted(points)
    if x <= xs[-1] or len(xs) == 1:
        return float(np.interp(x, xs, [points[x] for x in xs]))
    (x0, x1) = xs[-2:]
    return points[x1] + (x - x1) * (points[x1] - points[x0]) / (x1 - x0)


def erlang_refused(offered: float, places: int) -> float:
    """The share of streams that a cluster of fixed size refuses, by Erlang's formula (loss system).

    `offered`: the mean number of streams that would be open if none were refused.
    """
    inverse = 1.0
    for place in range(1, places + 1):
        inverse = 1.0 + inverse * place / offered
    return 1.0 / inverse if math.isfinite(inverse) else 0.0
