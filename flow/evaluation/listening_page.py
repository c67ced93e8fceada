"""The page of `glowlab compare`: what it shows of renders, figures and voices.

Rules: the page is one file that needs no other file and no network. listening_page.html is its look and its behaviour. A
system that could not be rendered is named on the page with the reason.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from glowd.flow import checkpoint
from glowd.flow.evaluation import plots, scores
from glowd.flow.evaluation.manifest import Origin
from glowd.flow.evaluation.metrics import library
from glowd.flow.evaluation.renders import LIVE, Render
from glowd.flow.evaluation.systems import GRIFFIN_LIM, REAL, RTISI_LA, WAVEGLOW, WAVENET, System
from glowd.flow.mel import Floats

ABOUT = {
    REAL: "the recording itself",
    GRIFFIN_LIM: "no network; phase found by 60 rounds over the whole utterance",
    RTISI_LA: "no network; phase found frame by frame, with a look-ahead of a few",
    WAVENET: "a network that makes a few samples at a time, each from all before it; many times slower",
    WAVEGLOW: "a flow, inverted over the whole utterance",
    LIVE: "the same flow, streamed through a running daemon at the pace of speech",
}
"""What each system is, for listeners."""
OPUS_HZ = 24000
"""Opus has 8, 12, 16, 24 and 48 kHz; 24 kHz holds all of 22,050 Hz."""
OPUS_LEVEL = 0.77
"""In libsndfile's scale from 0 (best) to 1: about 64 kbit/s of mono, at which speech is transparent."""
AUDIO = {"opus": "audio/ogg; codecs=opus", "flac": "audio/flac"}
TEMPLATE = Path(__file__).with_name("listening_page.html")
SHOWN = ("pesq", "stoi", "dnsmos")
"""Figures under each player."""


def encode(samples: Floats, rate_hz: int, kind: str) -> tuple[str, bytes]:
    """Samples [T] as a file in memory: its media type and bytes. FLAC where this libsndfile writes no Opus."""
    import soundfile
    import soxr

    out, mono = io.BytesIO(), samples.clip(-1, 1)
    if kind == "opus" and "OPUS" in soundfile.available_subtypes("OGG"):
        wide = soxr.resample(mono, rate_hz, OPUS_HZ, quality="VHQ")
        soundfile.write(out, wide, OPUS_HZ, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
        return AUDIO["opus"], out.getvalue()
    soundfile.write(out, mono, rate_hz, format="FLAC", subtype="PCM_16")
    return AUDIO["flac"], out.getvalue()


def data_url(media_type: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def sentence_entries(
    renders: Sequence[Render], audio: str, origins: Mapping[Path, Origin] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """The sentences of the page, each with its players, in the order given. `audio`: opus or flac."""
    by_path: dict[Path, list[Render]] = {}
    for one in renders:
        by_path.setdefault(one.measured.job.path, []).append(one)
    return [_sentence(path, players, audio, origins.get(path)) for path, players in by_path.items()]


def _sentence(path: Path, players: list[Render], audio: str, origin: Origin | None) -> dict[str, Any]:
    first = players[0].measured.job
    rate_hz = first.format.rate_hz
    # One scale for all pictures of a sentence, that of its recording, so that a quieter system is darker.
    top = float(plots.spectrum(players[0].samples, rate_hz).max())
    heard = [_bearable(one, players[0].samples) for one in players]
    return {
        "title": path.stem,
        "set": first.set,
        "origin": origin,
        "seconds": len(players[0].samples) / rate_hz,
        "players": [
            {
                "system": one.measured.job.system.name,
                "kind": one.measured.job.system.kind,
                "audio": data_url(*encode(samples, rate_hz, audio)),
                "picture": data_url("image/webp", plots.spectrogram(one.samples, rate_hz, top)),
                "figures": _figures(one),
            }
            for one, samples in zip(players, heard)
        ],
    }


def _figures(one: Render) -> list[str]:
    values = one.measured.values
    found = [f"{c.heading} {c.cell(values[c.key])}" for c in scores.COLUMNS if c.key in SHOWN and c.key in values]
    return [*found, "diverged: played more softly here"] if values.get("overload") else found


def _bearable(one: Render, recording: Floats) -> Floats:
    """What a listener gets: a render that diverged is noise at full scale, and is made as soft as the recording."""
    if not one.measured.values.get("overload"):
        return one.samples
    return one.samples * np.float32(np.sqrt(np.square(recording).mean() / np.square(one.samples).mean()))


def tables(rows: Sequence[scores.Row]) -> list[dict[str, Any]]:
    """Rows as the page shows them: by set, with a mark where a goal is reached."""
    columns = [column for column in scores.COLUMNS if any(column.key in row.mean for row in rows)]
    return [
        {
            "set": name,
            "columns": [
                (column, column.goal(any(row.stranger for row in rows if row.set == name))) for column in columns
            ],
            "clips": max(row.clips for row in rows if row.set == name),
            "rows": [
                {"system": row.system, "seeds": row.seeds, "cells": [_cell(column, row) for column in columns]}
                for row in rows
                if row.set == name
            ],
        }
        for name in dict.fromkeys(row.set for row in rows)
    ]


def _cell(column: scores.Column, row: scores.Row) -> dict[str, Any]:
    value, spread = row.mean.get(column.key), row.spread.get(column.key)
    short = column.shortfall(row)
    return {
        "text": column.cell(value),
        "spread": "" if spread is None else column.cell(spread),
        "reached": None if row.system == REAL or short is None else not short,
    }


def cards(systems: Sequence[System]) -> list[dict[str, Any]]:
    """The voice card of each checkpoint, and the picture of its training where the card has the curve."""
    found = []
    for path in dict.fromkeys(system.checkpoint for system in systems if system.checkpoint):
        _, card = checkpoint.read_any_header(path)
        points = card.get("curve") or []
        facts = {key: value for key, value in card.items() if not isinstance(value, dict | list)}
        digest = hashlib.sha256(checkpoint.resolve(path).read_bytes()).hexdigest()
        name = path if path == "embedded" else Path(path).name
        found.append({"name": name, "facts": facts | {"sha256": digest}, "curve": plots.curve(points)})
    return found


def page(**parts: Any) -> str:
    """The page. Raises MetricError without Jinja."""
    jinja = library("jinja2")
    environment = jinja.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja.StrictUndefined
    )
    kinds = {p["kind"] for s in parts["sentences"] for p in s["players"]}
    about = {kind: text for kind, text in ABOUT.items() if kind in kinds}
    content = json.dumps([[s["title"], [p["system"] for p in s["players"]]] for s in parts["sentences"]])
    content = content.replace("<", "\\u003c")  # a file name must not end the script that it is part of
    # Votes belong to exactly this audio: another page, or a new version of this one, must not count them.
    audio = hashlib.sha256("".join(p["audio"] for s in parts["sentences"] for p in s["players"]).encode())
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        **parts, about=about, key=audio.hexdigest()[:16], content=content
    )
    return text
