"""Mel formats on the command line: `--format NAME,KEY=VALUE`, the list of `glowctl formats`, and padding of files.

Rules: pure functions; glowctl prints.
"""

import argparse
from typing import Any

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.mel_formats.conversion import Fit, compare
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.presets import PRESETS, Preset, preset, preset_for

WORDS = {"true": True, "false": False}


def stated_format(text: str) -> dict[str, Any]:
    """An argument type: "matcha", "coqui-db,fmax_hz=8000", "log=log10"; the map of `open.format`."""
    stated: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        stated |= {key: _value(value)} if equals else {"preset": _known(key)}
    if not stated:
        raise argparse.ArgumentTypeError("expected a name or KEY=VALUE; glowctl formats lists the names")
    return stated


def _known(name: str) -> str:
    try:
        return preset(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return WORDS.get(text, text)


def format_lines(voice: MelDescription) -> list[str]:
    """A line for each preset: its name, what it is, and what a voice that wants `voice` can do with it."""
    names, whats = (
        max(map(len, column)) for column in zip(*((one.name, one.what) for one in PRESETS.values()), strict=True)
    )
    head = f"{'FORMAT':<{names}}  {'OF':<{whats}}  FOR THIS VOICE"
    return [head, *(f"{one.name:<{names}}  {one.what:<{whats}}  {use(one, voice)}" for one in PRESETS.values())]


def use(one: Preset, voice: MelDescription) -> str:
    """What a voice can do with mels of a preset."""
    verdict = compare(preset_for(one.name, voice), voice)
    needs = "; needs --statistics" if one.needs_statistics and verdict.fit is not Fit.IMPOSSIBLE else ""
    if verdict.fit is Fit.EXACT:
        return f"exact{needs}"
    if verdict.fit is Fit.APPROXIMATE:
        return f"at {verdict.cost_db:.1f} dB rms with --allow-approximate{needs}: {verdict.reason}"
    return f"no: {verdict.reason}"


def without_padding(mel: Floats, padding: float | None) -> Floats:
    """A mel [L, M] without the frames at its end that hold `padding` in every band."""
    if padding is None:
        return mel
    kept = np.flatnonzero((mel != np.float32(padding)).any(axis=1))
    return mel[: kept[-1] + 1] if len(kept) else mel[:0]
