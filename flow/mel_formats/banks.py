"""Triangular mel filter banks of every kind that toolkits use.

Rules: numpy only. glowd.flow.mel.filter_bank is the one of glowd's own front end; a test says that they agree.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import slaney_hz, slaney_mel
from glowd.flow.mel_formats.description import MelDescription

Array = NDArray[np.float64]


def corners_hz(mels: MelDescription) -> Array:
    """Where the triangles begin, peak and end [n_mels + 2], in Hz: band b has its peak at b + 1."""
    if mels.bank == "slaney":
        ends = slaney_mel(mels.fmin_hz), slaney_mel(mels.fmax_hz)
        return slaney_hz(np.linspace(*ends, mels.n_mels + 2))
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (mels.fmin_hz, mels.fmax_hz))  # HTK Book, section 5.4
    made: Array = 700 * (10 ** (np.linspace(low, high, mels.n_mels + 2) / 2595) - 1)
    return made


@lru_cache(maxsize=16)
def bank_of(mels: MelDescription) -> Array:
    """The filters [n_mels, n_fft / 2 + 1]."""
    corners = corners_hz(mels)
    bins = np.arange(mels.n_fft // 2 + 1) * (mels.rate_hz / mels.n_fft)
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    triangles: Array = np.maximum(0, np.minimum(rising, falling))
    return triangles * band_heights(mels)[:, None]


def band_heights(mels: MelDescription) -> Array:
    """The height of each triangle [n_mels]."""
    corners = corners_hz(mels)
    return 2 / (corners[2:] - corners[:-2]) if mels.norm == "slaney" else np.ones(mels.n_mels)


def band_gains(mels: MelDescription) -> Array:
    """What each band [n_mels] makes of a flat spectrum of magnitude 1; without regard to where the bins fall."""
    corners = corners_hz(mels)
    made: Array = band_heights(mels) * (corners[2:] - corners[:-2]) / 2 * (mels.n_fft / mels.rate_hz)
    return made
