"""The mel format of a new voice, from what the `voice` table of a run file states, and what follows from it.

    mel = "cosyvoice2"                      a preset: glowctl formats, flow/mel_formats/presets.py
    mel = { preset = "vocos", hop = 300 }   the same with other numbers; without a preset those of the published WaveGlow

A voice reads natural logarithms. What a toolkit does to them (logarithm, scale, offset) is undone by the daemon, so of a preset
only the transform counts, and of its floor what lies above LOWEST_FLOOR: a lower one would only make silence an outlier.
"""

import math
from dataclasses import fields
from typing import Any

import numpy as np

from glowd.flow.mel import MelFormat
from glowd.flow.mel_formats.banks import band_gains
from glowd.flow.mel_formats.description import MelDescription, described
from glowd.flow.mel_formats.presets import OF_ANY_VOICE, preset
from glowd.flow.training.settings import TrainError

LOWEST_FLOOR = 1e-7
KEYS = tuple(field.name for field in fields(MelFormat))


def voice_mel(stated: str | dict[str, Any]) -> MelFormat:
    """The format that `mel` of a voice table states. Raises TrainError."""
    if not isinstance(stated, str | dict):
        raise TrainError(f"voice geometry: mel is {stated!r}; allowed: the name of a preset, or a table")
    keys = {"preset": stated} if isinstance(stated, str) else dict(stated)
    name = keys.pop("preset", "")
    try:
        base = _preset(name) if name else MelDescription()
        if unknown := [key for key in keys if key not in KEYS]:
            raise ValueError(f"{unknown[0]!r} is nothing that a voice can differ in; known: preset, {', '.join(KEYS)}")
        return described(keys, base).mel_format
    except ValueError as error:
        raise TrainError(f"voice geometry: mel: {error}") from None


def _preset(name: Any) -> MelDescription:
    if name in OF_ANY_VOICE:
        raise ValueError(
            f"{name!r} is a scale, which the daemon converts for every voice; give the transform's numbers"
        )
    found = preset(str(name)).description
    if found.power != 1:
        raise ValueError(f"{name!r} has energies (power = {found.power}); a voice reads magnitudes")
    kept = {key: getattr(found, key) for key in KEYS} | {"log_floor": max(found.log_floor, LOWEST_FLOOR)}
    return MelDescription(**kept)


def level_shift(mel: MelFormat) -> float:
    """How far noise lies higher in this format than in the published WaveGlow's, in natural logarithms: mean over bands."""

    def level(format: MelFormat) -> float:
        description = MelDescription(**{key: getattr(format, key) for key in KEYS})
        # The magnitude of a bin grows with the root of the window's length.
        return float(np.log(band_gains(description)).mean()) + 0.5 * math.log(format.win * format.rate_hz)

    return round(level(mel) - level(MelFormat()), 2)


def groups_for(mel: MelFormat, usual: int) -> list[int]:
    """The divisors of the hop, as sizes of a group; first the one that lasts about as long as `usual` samples at 22,050 Hz."""
    wanted = usual * mel.rate_hz / MelFormat().rate_hz
    divisors = [size for size in range(1, mel.hop + 1) if mel.hop % size == 0]
    return sorted(divisors, key=lambda size: abs(math.log(size / wanted)))
