"""Triangular mel filter banks of every kind that toolkits use; what mel.py and the conversions share is in mel.py.

Rules: numpy only.
"""

from functools import lru_cache

from glowd.flow.mel import Doubles, band_heights, corners_hz, triangles
from glowd.flow.mel_formats.description import MelDescription

Array = Doubles


@lru_cache(maxsize=16)
def bank_of(mels: MelDescription) -> Array:
    """The filters [n_mels, n_fft / 2 + 1]."""
    return triangles(mels)


def band_gains(mels: MelDescription) -> Array:
    """What each band [n_mels] makes of a flat spectrum of magnitude 1; without regard to where the bins fall."""
    corners = corners_hz(mels)
    made: Array = band_heights(mels) * (corners[2:] - corners[:-2]) / 2 * (mels.n_fft / mels.rate_hz)
    return made
