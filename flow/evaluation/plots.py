"""Pictures for a page: a spectrogram, and the curve of a training.

Rules: samples and points in, bytes or markup out. The curve takes its colours from the page, light or dark.
"""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from glowd.flow.evaluation.metrics import library
from glowd.flow.mel import Floats, MelFormat, log_mel

LIBRARY = "PIL.Image"
BANDS = 160
RANGE_DB = 75.0
ANCHORS = [
    (4, 4, 12), (32, 12, 74), (85, 15, 109), (136, 34, 106), (187, 55, 84), (227, 89, 51), (249, 140, 10),
    (249, 201, 50), (252, 255, 190),
]  # fmt: skip
"""Colours from silence to the loudest, in even steps of lightness."""


def spectrogram(samples: Floats, rate_hz: int, top: float | None = None) -> bytes:
    """A WebP of samples [T], a pixel for each hop of 256, 160 mel bands up to half the rate. `top`: the brightest level
    (natural log), so that pictures of one sentence can be compared; None: the loudest there is. Raises MetricError
    without Pillow."""
    image = library(LIBRARY)
    level = spectrum(samples, rate_hz)
    brightest = float(level.max()) if top is None else top
    span = RANGE_DB * np.log(10) / 20
    index = (255 * np.clip((level - brightest) / span + 1, 0, 1)).astype(np.uint8)
    picture = image.fromarray(_palette()[index.T[::-1]], "RGB")
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=70, method=6)
    return out.getvalue()


def spectrum(samples: Floats, rate_hz: int) -> Floats:
    """Levels [L, 160] of samples [T], natural log of magnitude."""
    format = MelFormat(rate_hz, n_fft=2048, win=1024, n_mels=BANDS, fmax_hz=rate_hz / 2, log_floor=1e-7)
    return log_mel(samples, format)


def _palette() -> NDArray[np.uint8]:
    at = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(np.linspace(0, 1, 256), at, [colour[i] for colour in ANCHORS]) for i in range(3)]
    return np.stack(channels, 1).round().astype(np.uint8)


# ---- the curve of a training

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 52, 16, 12, 40


def curve(points: Sequence[Sequence[float]]) -> str:
    """An SVG of points (step, seconds, train, validation, ...), likelihoods in nats per sample. Empty for under two points.

    The likelihood of the first tenth changes so much that the rest would be a flat line: the picture leaves it out.
    """
    if len(points) < 2:
        return ""
    table = np.array([point[:4] for point in points], np.float64)
    hours, losses = table[:, 1] / 3600, table[:, 2:]
    shown = losses[len(losses) // 10 :]
    low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    x = LEFT + hours / max(hours[-1], 1e-9) * (WIDTH - LEFT - RIGHT)
    y = TOP + (high - losses) / max(high - low, 1e-9) * (HEIGHT - TOP - BOTTOM)
    lines = []
    for column, name in enumerate(("train", "validation")):
        inside = [f"{a:.1f},{b:.1f}" for a, b in zip(x, y[:, column]) if b >= TOP]
        lines.append(f'<polyline class="{name}" points="{" ".join(inside)}"/>')
    ticks = [_tick_y(value, low, high) for value in np.linspace(low, high, 5)]
    ticks += [_tick_x(share, float(hours[-1])) for share in np.linspace(0, 1, 5)]
    label = (
        f"Negative log-likelihood over {hours[-1]:.1f} hours of training, ending at {losses[-1, 1]:.2f} nats per sample"
    )
    axes = f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">hours of training</text>'
    content = "".join([*ticks, axes, *lines])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{content}</svg>'


def _tick_y(value: float, low: float, high: float) -> str:
    y = TOP + (high - value) / max(high - low, 1e-9) * (HEIGHT - TOP - BOTTOM)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
    )


def _tick_x(share: float, hours: float) -> str:
    x = LEFT + share * (WIDTH - LEFT - RIGHT)
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{share * hours:.2g}</text>'
