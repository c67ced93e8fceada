"""A way on which messages take their time and keep their order, as on a TCP connection."""

import numpy as np

from tests.bench.simulation.inputs import LinkFigures


class Link:
    """One direction of one connection. What is sent later arrives later, also behind a stop."""

    def __init__(self, figures: LinkFigures, rng: np.random.Generator) -> None:
        self._figures, self._rng, self._arrived_s = figures, rng, 0.0
        self._stop_s = self._next_stop(0.0)

    def _next_stop(self, now_s: float) -> float:
        rate = self._figures.stops_per_s
        return now_s + self._rng.exponential(1 / rate) if rate else float("inf")

    def arrival_s(self, sent_s: float) -> float:
        """When a message arrives that is sent now."""
        stopped_s = 0.0
        if sent_s >= self._stop_s:
            stopped_s, self._stop_s = self._figures.stop_ms / 1000, self._next_stop(sent_s)
        delay_s = (self._figures.base_ms + self._rng.exponential(self._figures.jitter_ms)) / 1000
        self._arrived_s = max(self._arrived_s, sent_s + stopped_s + delay_s)
        return self._arrived_s
