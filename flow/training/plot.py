"""A picture of a training run's curve, as PNG: likelihood, spectral distance, learning rate over steps.

Rules: points in, bytes out. matplotlib is optional (`pip install 'glowd[plots]'`): without it there is no picture, only
curve.csv.
"""

import importlib.util
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glowd.flow.training.curve import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, PANEL_INCHES = 8.0, 2.4
ROBUST_SHARE = 0.02
"""Share of the values, the highest, that may lie outside a panel: those of the first points would flatten the rest."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curve_png(curve: Sequence[Point]) -> bytes:
    """The picture of a curve of at least one point; with a spectral panel where there is a spectral distance."""
    from matplotlib.figure import Figure

    spectral = [point for point in curve if point.spectral is not None]
    panels = 3 if spectral else 2
    figure = Figure(figsize=(WIDTH_INCHES, panels * PANEL_INCHES), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    steps = [point.step for point in curve]
    axes[0].plot(steps, [point.train for point in curve], label="training", alpha=0.6)
    axes[0].plot(steps, [point.validation for point in curve], label="validation, averaged weights")
    axes[0].legend()
    _limit(axes[0], [nll for point in curve for nll in (point.train, point.validation)])
    axes[0].set_ylabel("NLL (nats/sample)")
    if spectral:
        axes[1].plot([point.step for point in spectral], [point.spectral for point in spectral])
        axes[1].set_ylabel("spectral distance")
    axes[-1].plot(steps, [point.lr for point in curve])
    axes[-1].set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle(f"{curve[-1].step} steps, {curve[-1].seconds / 60:.0f} minutes")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _limit(axis: "Axes", values: Sequence[float]) -> None:
    ranked = sorted(values)
    low, high = ranked[0], ranked[-1 - int(ROBUST_SHARE * len(ranked))]
    margin = 0.05 * (high - low) or 0.1
    axis.set_ylim(low - margin, high + margin)
