"""One picture of a sentence by each system, for a document: spectrograms from 0 to 8 kHz under one another's axes.

Rules: renders in, a PNG out. Its letters are grey on nothing, so that it can stand on a light page and on a dark one.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glowd.flow.evaluation.metrics import library
from glowd.flow.evaluation.renders import Render
from glowd.flow.mel import Floats

LIBRARY = "matplotlib.figure"
COLUMNS = 2
TOP_HZ, RANGE_DB = 8000, 70
WINDOW, HOP = 768, 192
INK = "#808080"
COLOURS = 64
"""Of the PNG: half the size of one with 24 bits, and no difference to see."""


def spectrograms(renders: Sequence[Render]) -> bytes:
    """A PNG with a spectrogram of each render of one sentence, all on the scale of the first, the recording.

    Raises MetricError without matplotlib or Pillow.
    """
    figure, axes = _figure(len(renders))
    levels = [_level_db(one.samples) for one in renders]
    top_db = float(levels[0].max())
    for axis, one, level in zip(axes, renders, levels):
        rate_hz = one.measured.job.format.rate_hz
        extent = (0, len(one.samples) / rate_hz, 0, rate_hz / 2000)
        axis.imshow(
            level.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top_db - RANGE_DB, vmax=top_db
        )
        axis.set_ylim(0, TOP_HZ / 1000)
        axis.set_title(one.measured.job.system.name, color=INK, fontsize=9, loc="left")
        axis.tick_params(colors=INK, labelsize=7)
    for axis in axes[len(renders) :]:
        axis.set_axis_off()
    return _png(figure)


def _figure(count: int) -> tuple[Any, list[Any]]:
    rows = -(-count // COLUMNS)
    figure = library(LIBRARY).Figure(figsize=(9, 1.7 * rows + 0.3), dpi=100, layout="constrained")
    figure.patch.set_alpha(0)
    axes = list(figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat)
    figure.supylabel("kHz", color=INK, fontsize=8)
    figure.supxlabel("s", color=INK, fontsize=8)
    return figure, axes


def _level_db(samples: Floats) -> NDArray[np.float64]:
    """Levels [frames, bins] of samples [T]."""
    padded = np.pad(samples.astype(np.float64), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    level: NDArray[np.float64] = 20 * np.log10(np.abs(np.fft.rfft(frames, 2 * WINDOW)) + 1e-6)
    return level


def _png(figure: Any) -> bytes:
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png")
    image = library("PIL.Image")
    image.open(whole).quantize(COLOURS, method=image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()
