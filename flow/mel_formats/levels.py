"""Statistics of mel frames that are still arriving, in a fixed amount of memory.

Rules: numpy only; nothing is judged here (plausibility.py does).
"""

from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import Floats
from glowd.flow.mel_formats.banks import band_gains
from glowd.flow.mel_formats.description import MelDescription

BIN_LOW, BIN_HIGH, BINS_PER_UNIT = -30.0, 20.0, 20
BIN_COUNT = int((BIN_HIGH - BIN_LOW) * BINS_PER_UNIT)
FRAMES_AT_LEAST = 20
"""An utterance of fewer frames is not judged."""

Counts = NDArray[np.int64]


def _no_counts() -> Counts:
    return np.zeros(BIN_COUNT, np.int64)


class Levels(NamedTuple):
    """What a second or more of frames is judged by. Silent frames and padding are left out."""

    low: float
    """The value that a hundredth lies below."""
    median: float
    high: float
    """The value that a thousandth lies above."""
    mean: float
    deviation: float
    loud: float
    """The mean of a frame that one in ten exceeds."""
    swing: float
    """The range of the frames' means, without the outer twentieths."""
    within: float
    """The median standard deviation within a frame."""
    at_lowest: float
    """Share of the values that are the lowest one: many, where a scale was clipped."""
    lowest: float


@dataclass(slots=True)
class Seen:
    """Statistics of the frames so far, without the silent ones. Sizes are fixed."""

    values: Counts = field(default_factory=_no_counts)
    means: Counts = field(default_factory=_no_counts)
    spreads: Counts = field(default_factory=_no_counts)
    frames: int = 0
    total: float = 0.0
    squares: float = 0.0
    lowest: float = np.inf
    at_lowest: int = 0
    highest: float = -np.inf

    def add(self, frames: Floats) -> None:
        """Counts frames [n, bands]."""
        sums, squares = frames.sum(axis=1, dtype=np.float64), np.square(frames, dtype=np.float64).sum(axis=1)
        means = sums / frames.shape[1]
        spreads = np.sqrt(np.maximum(squares / frames.shape[1] - means * means, 0))
        for counts, values in ((self.values, frames), (self.means, means), (self.spreads, spreads)):
            counts += _histogram(values)
        self.frames += len(frames)
        self.total += float(sums.sum())
        self.squares += float(squares.sum())
        lowest = float(frames.min())
        if lowest < self.lowest:
            self.lowest, self.at_lowest = lowest, 0
        self.at_lowest += int((frames == np.float32(self.lowest)).sum())
        self.highest = max(self.highest, float(frames.max()))

    def levels(self) -> Levels:
        """What they are judged by; there must be some."""
        count = int(self.values.sum())
        mean = self.total / count
        return Levels(
            low=max(_quantile(self.values, 0.01), self.lowest),
            median=_quantile(self.values, 0.5),
            high=min(_quantile(self.values, 0.999), self.highest),
            mean=mean,
            deviation=max(0.0, self.squares / count - mean * mean) ** 0.5,
            loud=_quantile(self.means, 0.9),
            swing=_quantile(self.means, 0.95) - _quantile(self.means, 0.05),
            within=_quantile(self.spreads, 0.5),
            at_lowest=self.at_lowest / count,
            lowest=self.lowest,
        )


def _histogram(values: Floats) -> Counts:
    places = ((np.clip(values, BIN_LOW, BIN_HIGH - 0.01) - BIN_LOW) * BINS_PER_UNIT).astype(np.int64)
    return np.bincount(places.ravel(), minlength=BIN_COUNT)


def _quantile(counts: Counts, share: float) -> float:
    place = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return BIN_LOW + (place + 0.5) / BINS_PER_UNIT


class Steps:
    """How far values move from frame to frame, and from band to band: running means of their medians."""

    def __init__(self) -> None:
        self._over_frames = self._over_bands = 0.0
        self._last: Floats | None = None
        self.frames = 0

    def add(self, frames: Floats) -> None:
        """Counts frames [n, bands]."""
        whole = frames if self._last is None else np.concatenate([self._last, frames])
        self._last = frames[-1:].copy()
        if len(whole) < 2 or whole.shape[1] < 2:
            return
        steps = len(whole) - 1
        self._over_frames += steps * _median_of_means(np.abs(whole[1:] - whole[:-1]))
        self._over_bands += steps * _median_of_means(np.abs(whole[:, 1:] - whole[:, :-1]))
        self.frames += steps

    def skip(self) -> None:
        """Frames come that are not counted."""
        self._last = None

    @property
    def ratio(self) -> float:
        """Steps over frames as a multiple of those over bands; 0 while there is nothing to compare."""
        if self.frames < FRAMES_AT_LEAST or self._over_bands < 0.3 * self.frames:
            return 0.0
        return self._over_frames / self._over_bands


def _median_of_means(rows: Floats) -> float:
    return median(rows.mean(axis=1).tolist())  # of so few values, numpy's takes ten times as long


def level_of(mels: MelDescription) -> float:
    """What a flat spectrum comes to in a format, in natural logarithms, up to a constant that all formats share."""
    return float(np.log(band_gains(mels)).mean() + np.log(mels.win) - np.log(mels.n_fft))
