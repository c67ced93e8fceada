"""Frames as another toolkit makes them -> frames as a voice wants them: exactly, at a stated cost, or not at all.

Rules: numpy only, no I/O. A conversion is a fixed function of one frame, so it streams, and its work for a frame is
bounded: one multiplication by a [bands, bands] matrix at most.

    exact           logarithm, scale and offset, a lower floor, the norm of the same bands, the half hop of `centre`
    approximate     other bands (bank, fmin_hz, fmax_hz, n_mels), energies, a higher floor
    impossible      another rate_hz, hop, n_fft or win: other samples were looked at

Where bands differ, the mean level in each band is interpolated, in the logarithm, between the bands' centres. On 60
recordings this came nearer (1.5 dB rms for 0..11025 Hz -> 0..8000 Hz) than any map of the magnitudes: pseudo-inverse of
the bank 6.0 dB, least-squares with a smooth prior 6.6 dB, the same without negative weights 3.1 dB.
"""

from dataclasses import dataclass, fields
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import Floats
from glowd.flow.mel_formats.banks import Array, band_gains, band_heights, corners_hz
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.probe import probe_levels

TRANSFORM = ("rate_hz", "n_fft", "win", "hop")
BANDS = ("bank", "fmin_hz", "fmax_hz", "n_mels", "power")
EDGE_DB_PER_OCTAVE = 12.0
"""How steeply speech falls below the first band and above the last; with 0, 80..7600 Hz costs 3.1 dB and not 1.1."""
LN_PER_UNIT = {"ln": 1.0, "log10": np.log(10), "db": np.log(10) / 20}


class Fit(Enum):
    """How near a format can come to a voice's."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a format can be converted into a voice's. `differing`: (key, theirs, the voice's), those that hinder."""

    fit: Fit
    differing: tuple[tuple[str, Any, Any], ...]
    cost_db: float
    """The rms error in each band that the conversion adds, on speech-like spectra (probe.py); 0 where it is exact."""

    @property
    def reason(self) -> str:
        """What differs, in words: "fmax_hz = 11025 (voice: 8000)"."""
        return ", ".join(f"{key} = {_shown(theirs)} (voice: {_shown(own)})" for key, theirs, own in self.differing)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@lru_cache(maxsize=64)
def compare(theirs: MelDescription, voice: MelDescription) -> Verdict:
    """Whether frames that are `theirs` can become frames for a voice, and what stands in the way."""
    impossible = _differing(TRANSFORM, theirs, voice)
    if impossible:
        return Verdict(Fit.IMPOSSIBLE, impossible + _differing(BANDS, theirs, voice), 0.0)
    costly = _differing(BANDS, theirs, voice)
    if _floor(theirs, voice) > voice.log_floor * 1.001:
        costly += (("log_floor", theirs.log_floor, voice.log_floor),)
    if costly:
        return Verdict(Fit.APPROXIMATE, costly, cost_db(theirs, voice))
    return Verdict(Fit.EXACT, (), 0.0)


def _differing(
    keys: tuple[str, ...], theirs: MelDescription, voice: MelDescription
) -> tuple[tuple[str, Any, Any], ...]:
    pairs = [(key, getattr(theirs, key), getattr(voice, key)) for key in keys]
    return tuple((key, one, other) for key, one, other in pairs if one != other)


def _floor(theirs: MelDescription, voice: MelDescription) -> float:
    """The highest magnitude that their floor can have in a band of the voice's heights."""
    magnitude = theirs.log_floor ** (1 / theirs.power)
    if theirs.norm == voice.norm or theirs.n_mels != voice.n_mels:
        return magnitude
    return float(magnitude * (band_heights(voice) / band_heights(theirs)).max())


class Converter:
    """Makes a voice's frames of frames that are described otherwise. It has no state: any chunking gives the same."""

    def __init__(self, theirs: MelDescription, voice: MelDescription) -> None:
        self.theirs, self.voice = theirs, voice
        ln_per_unit = LN_PER_UNIT[theirs.log] / (1 if theirs.log == "db" else theirs.power)
        self._scale = np.asarray(theirs.scale, np.float64) * ln_per_unit
        self._offset = np.asarray(theirs.offset, np.float64) * ln_per_unit
        self._floor = np.log(voice.log_floor)
        self._matrix = band_matrix(theirs, voice) if _differing(BANDS, theirs, voice) else None
        self._their_gains = np.log(band_gains(theirs)) / theirs.power
        self._gains = np.log(band_gains(voice)) - (0 if self._matrix is None else outside(theirs, voice))
        if self._matrix is None and theirs.norm == voice.norm:
            self._their_gains = self._gains

    def convert(self, frames: Floats) -> Floats:
        """Frames [n, theirs.n_mels] -> [n, voice.n_mels] natural logarithms, at least the voice's floor."""
        logs = frames * self._scale + self._offset
        if self._matrix is not None:
            logs = (logs - self._their_gains) @ self._matrix + self._gains
        elif self._their_gains is not self._gains:
            logs = logs - self._their_gains + self._gains
        made: Floats = np.maximum(logs, self._floor).astype(np.float32)
        if self.theirs.padding is not None:
            made[(frames == np.float32(self.theirs.padding)).all(axis=1)] = self._floor
        return made


@lru_cache(maxsize=16)
def band_matrix(theirs: MelDescription, voice: MelDescription) -> Array:
    """Linear interpolation between the centres of bands [theirs, voice's]; beyond the outermost one its value holds."""
    source_hz, wanted_hz = corners_hz(theirs)[1:-1], corners_hz(voice)[1:-1]
    return np.stack([np.interp(wanted_hz, source_hz, one) for one in np.eye(theirs.n_mels)])


def outside(theirs: MelDescription, voice: MelDescription) -> Array:
    """What the voice's bands beyond their outermost ones lie below these, in natural logarithms [voice.n_mels]."""
    source_hz, wanted_hz = corners_hz(theirs)[1:-1], corners_hz(voice)[1:-1]
    beyond = np.maximum(source_hz[0] / wanted_hz, wanted_hz / source_hz[-1])
    made: Array = np.maximum(0, np.log2(beyond)) * (EDGE_DB_PER_OCTAVE * np.log(10) / 20)
    return made


def cost_db(theirs: MelDescription, voice: MelDescription) -> float:
    """The rms difference in dB between converted frames and the voice's own, over all bands of the probes."""
    if theirs.n_mels > 512 or voice.n_mels > 512:
        raise ValueError(f"{max(theirs.n_mels, voice.n_mels)} bands; at most 512")
    raw = {field.name: getattr(theirs, field.name) for field in fields(theirs)}
    plain = MelDescription(**(raw | {"log": "ln", "scale": 1.0, "offset": 0.0, "padding": None}))
    converted: NDArray[np.float32] = Converter(plain, voice).convert(probe_levels(plain))
    error = converted - probe_levels(voice)
    return float(np.sqrt(np.mean(error.astype(np.float64) ** 2)) * 20 / np.log(10))
