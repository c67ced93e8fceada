"""The page on which anyone can judge the systems by ear: what goes into it, and how it is put together.

Rules: the page is one file that needs nothing else and no network. What it looks like and what it does is compare.html; here
is only what it shows. A system that could not be heard is named on the page with the reason, never left out in silence.
"""

import base64
import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glowd.flow import checkpoint
from glowd.flow.evaluation import live, plots, scores
from glowd.flow.evaluation.evaluate import Job, Measured, judge, read_clip, run, sound
from glowd.flow.evaluation.metrics import MetricError, difference_max, library
from glowd.flow.evaluation.systems import GRIFFIN_LIM, REAL, RTISI_LA, WAVEGLOW, WAVENET, System
from glowd.flow.mel import Floats
from glowd.flow.training.data import SUFFIXES, DataError, find_recordings

LIVE = "WaveGlow live"
ABOUT = {
    REAL: "the recording itself",
    GRIFFIN_LIM: "no network; phase found by 60 rounds over the whole utterance",
    RTISI_LA: "no network; phase found frame by frame, with a look-ahead of a few",
    WAVENET: "a network that makes a few samples at a time, each from all before it; many times slower",
    WAVEGLOW: "a flow, inverted over the whole utterance",
    LIVE: "the same flow, streamed through a running daemon at the pace of speech",
}
"""What the systems are, for listeners."""
OPUS_HZ = 24000
"""Opus knows 8, 12, 16, 24 and 48 kHz; 24 holds all of 22,050."""
OPUS_LEVEL = 0.5
"""In libsndfile's scale from 0 (best) to 1: about 130 kbit/s of mono, far above what speech needs to be transparent."""
AUDIO = {"opus": "audio/ogg; codecs=opus", "flac": "audio/flac"}
TEMPLATE = Path(__file__).with_name("listening_page.html")
SHOWN = ("pesq", "stoi")
"""Figures under each player."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One system on one sentence."""

    measured: Measured
    samples: Floats


@dataclass(slots=True)
class Listening:
    """Everything that can be heard on the page, and what could not be."""

    heard: list[Heard] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sentences(sources: Iterable[Path], count: int, longest_s: float) -> list[tuple[str, Path]]:
    """(set, recording) of `count` clips: files as given, folders in turn, clips beyond `longest_s` left out.

    Raises DataError if there are none.
    """
    import soundfile

    def fits(path: Path) -> bool:
        try:
            return bool(soundfile.info(path).duration <= longest_s)
        except soundfile.SoundFileError:
            return True  # it is named with the reason when it is read

    def of(source: Path) -> Iterator[tuple[str, Path]]:
        if source.suffix.lower() in SUFFIXES:
            return iter([(source.parent.name, source)])
        return ((source.name, path) for path in find_recordings(source) if fits(path))

    turns = itertools.zip_longest(*(of(source) for source in sources))
    found = [one for turn in turns for one in turn if one][:count]
    if not found:
        raise DataError(f"no recording is at most {longest_s:g} s long; raise --longest")
    sets = list(dict.fromkeys(name for name, _ in found))
    return sorted(found, key=lambda one: sets.index(one[0]))


# ---- what is heard


def listen(jobs: Sequence[Job], processes: int, progress: Callable[[Iterable[Any], int], Iterable[Any]]) -> Listening:
    """Render and judge every job. A clip that cannot be used becomes a note."""
    found = Listening()
    for result in progress(run(heard, jobs, processes), len(jobs)):
        if isinstance(result, Heard):
            found.heard.append(result)
            found.notes += scores.skipped([result.measured])
        elif result not in found.notes:
            found.notes.append(result)
    return found


def heard(job: Job) -> Heard | str:
    """One job, in a worker: what is heard, or why nothing is."""
    try:
        return Heard(*sound(job))
    except (DataError, MetricError) as error:
        return str(error)


def listen_live(
    jobs: Sequence[Job], rendered: Sequence[Heard], progress: Callable[[Iterable[Any], int], Iterable[Any]]
) -> Listening:
    """Speak every job's clip through a daemon with the voice of its system, at the pace of speech.

    What the same voice `rendered` offline, with the same seeds, is what the daemon's speech is compared with.
    """
    found = Listening()
    offline = {
        (one.measured.job.path, one.measured.job.system.checkpoint): one.samples
        for one in rendered
        if one.measured.job.system.kind == WAVEGLOW
    }
    # A clip that cannot be used is not among the rendered ones; `listen` has told why.
    jobs = [job for job in jobs if (job.path, job.system.checkpoint) in offline]
    if not jobs:
        return found
    try:
        with live.running(jobs[0].system.checkpoint) as daemon:
            for job in progress(jobs, len(jobs)):
                found.heard.append(_speak(daemon, job, offline[job.path, job.system.checkpoint]))
                found.notes += scores.skipped([found.heard[-1].measured])
    except (live.LiveError, MetricError) as error:
        found.notes.append(f"{LIVE}: {error}")
    return found


def _speak(daemon: live.Speaking, job: Job, offline: Floats) -> Heard:
    clip = read_clip(job.path, job.format)
    samples = daemon.speak(clip.mel, job.format.rate_hz, job.seed)
    values, comb, problems = judge(clip, samples, job.format, job.group)
    values[scores.STREAMED] = difference_max(offline, samples)
    return Heard(Measured(job, values, comb, problems), samples)


# ---- what is shown


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


def shown(found: Sequence[Heard], audio: str) -> list[dict[str, Any]]:
    """The sentences of the page, each with its players, in the order given."""
    by_path: dict[Path, list[Heard]] = {}
    for one in found:
        by_path.setdefault(one.measured.job.path, []).append(one)
    return [_sentence(path, players, audio) for path, players in by_path.items()]


def _sentence(path: Path, players: list[Heard], audio: str) -> dict[str, Any]:
    first = players[0].measured.job
    rate_hz = first.format.rate_hz
    # One scale for all pictures of a sentence: a quieter system shall look darker.
    top = max(float(plots.spectrum(one.samples, rate_hz).max()) for one in players)
    return {
        "title": path.stem,
        "set": first.set,
        "seconds": len(players[0].samples) / rate_hz,
        "players": [
            {
                "system": one.measured.job.system.name,
                "kind": one.measured.job.system.kind,
                "audio": data_url(*encode(one.samples, rate_hz, audio)),
                "picture": data_url("image/webp", plots.spectrogram(one.samples, rate_hz, top)),
                "figures": [
                    f"{column.heading} {column.cell(one.measured.values[column.key])}"
                    for column in scores.COLUMNS
                    if column.key in SHOWN and column.key in one.measured.values
                ],
            }
            for one in players
        ],
    }


def tables(rows: Sequence[scores.Row]) -> list[dict[str, Any]]:
    """Rows as the page shows them: by set, with a mark where a goal is reached."""
    columns = [column for column in scores.COLUMNS if any(column.key in row.mean for row in rows)]
    return [
        {
            "set": name,
            "columns": columns,
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
    reached = None if column.goal is None or value is None else not column.shortfall(value)
    return {
        "text": column.cell(value),
        "spread": "" if spread is None else column.cell(spread),
        "reached": None if row.system == REAL else reached,
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
    content = content.replace("<", "\\u003c")  # a file name must not end the script it stands in
    # Votes belong to just this audio: another page, or this one made again, must not count them.
    audio = hashlib.sha256("".join(p["audio"] for s in parts["sentences"] for p in s["players"]).encode())
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        **parts, about=about, key=audio.hexdigest()[:16], content=content
    )
    return text
