"""The mel format of a new voice, as `mel` in the `voice` table of a run file states it (mel_formats/voice.py), and what follows
from it for a network."""

import math
from typing import Any

import numpy as np

from glowd.flow.mel import MelFormat
from glowd.flow.mel_formats.banks import band_gains
from glowd.flow.mel_formats.voice import as_description, voice_format
from glowd.flow.training.settings import TrainError


def voice_mel(stated: str | dict[str, Any]) -> MelFormat:
    """The format that `mel` of a voice table states. Raises TrainError."""
    if not isinstance(stated, str | dict):
        raise TrainError(f"voice geometry: mel is {stated!r}; allowed: the name of a preset, or a table")
    try:
        return voice_format(stated)
    except ValueError as error:
        raise TrainError(f"voice geometry: mel: {error}") from None


def level_shift(mel: MelFormat) -> float:
    """How far noise lies higher in this format than in the published WaveGlow's, in natural logarithms: mean over bands."""

    def level(format: MelFormat) -> float:
        # The magnitude of a bin grows with the root of the window's length.
        gain = float(np.log(band_gains(as_description(format))).mean())
        return gain + 0.5 * math.log(format.win * format.rate_hz)

    return round(level(mel) - level(MelFormat()), 2)


def groups_for(mel: MelFormat, usual: int) -> list[int]:
    """The divisors of the hop, as sizes of a group; first the one that lasts about as long as `usual` samples at 22,050 Hz."""
    wanted = usual * mel.rate_hz / MelFormat().rate_hz
    divisors = [size for size in range(1, mel.hop + 1) if mel.hop % size == 0]
    return sorted(divisors, key=lambda size: abs(math.log(size / wanted)))
