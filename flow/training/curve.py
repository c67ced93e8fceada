"""The curve of a training run: its points, and the losses since the last of them."""

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

CARD_POINTS = 200


class Point(NamedTuple):
    """One point of the curve. Likelihoods are negative logarithms, in nats per sample."""

    step: int
    seconds: float
    """Of training, validation included."""
    train: float
    """Mean likelihood of the batches since the last point."""
    validation: float
    """Likelihood of fixed segments."""
    lr: float
    spectral: float | None = None
    """Distance between fixed segments and fixed samples; None where it is no part of the loss."""


class Curve:
    """The points of a run so far, oldest first, and the likelihood of each step since the last of them."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.losses: list[float] = []

    @property
    def mean_loss(self) -> float:
        """Of the steps since the last point; 0 if there were none."""
        return sum(self.losses) / max(1, len(self.losses))

    def add(self, point: Point) -> None:
        """End the current stretch of steps with a point."""
        self.points.append(point)
        self.losses = []

    def state_dict(self) -> dict[str, Any]:
        """Plain values for `load_state_dict`."""
        return {"curve": [list(point) for point in self.points], "losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.points, self.losses = [Point(*point) for point in state["curve"]], list(state["losses"])


def as_csv(points: Sequence[Sequence[Any]]) -> str:
    """A table with a heading."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([Point._fields, *points])
    return table.getvalue()


def thinned(points: Sequence[Point], most: int = CARD_POINTS) -> list[list[float]]:
    """Points for a card: at most `most`, the last one among them, rounded; the spectral distance only where it is known."""
    stride = -(-len(points) // most) or 1
    return [
        [step, round(s, 1), round(a, 4), round(b, 4), float(f"{lr:.3g}")] + ([] if d is None else [round(d, 4)])
        for step, s, a, b, lr, d in points[::-stride][::-1]
    ]
