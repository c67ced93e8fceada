"""The mel format that a voice is given by name or by numbers: where one is trained, or needs no training.

    "cosyvoice2"                            a preset: glowctl formats, presets.py
    {"preset": "vocos", "hop": 300}         the same with other numbers; without a preset those of the published WaveGlow

A voice reads natural logarithms. What a toolkit does to them (logarithm, scale, offset) is undone by the daemon, so of a preset
only the transform counts, and of its floor what lies above LOWEST_FLOOR: a lower one would only make silence an outlier.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from glowd.flow.mel import MelFormat
from glowd.flow.mel_formats.description import MelDescription, described
from glowd.flow.mel_formats.presets import OF_ANY_VOICE, preset

LOWEST_FLOOR = 1e-7
KEYS = tuple(field.name for field in fields(MelFormat))


def voice_format(stated: str | Mapping[str, Any]) -> MelFormat:
    """The format that a name or a map states. Raises ValueError."""
    keys: dict[str, Any] = {"preset": stated} if isinstance(stated, str) else dict(stated)
    name = keys.pop("preset", "")
    base = _preset(name) if name else MelDescription()
    if unknown := [key for key in keys if key not in KEYS]:
        raise ValueError(f"{unknown[0]!r} is nothing that a voice can differ in; known: preset, {', '.join(KEYS)}")
    return described(keys, base).mel_format


def as_description(format: MelFormat) -> MelDescription:
    """The same transform, with natural logarithms."""
    return MelDescription(**{key: getattr(format, key) for key in KEYS})


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
