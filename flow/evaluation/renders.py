"""Renders for a listening page: sentences from recordings, and every system on each, offline or by a running daemon.

Rules: a system that could not be rendered is a note with the reason. The page itself is listening_page.py.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glowd.flow.evaluation import live, scores
from glowd.flow.evaluation.evaluate import Job, Measured, figures_of, read_clip, render_and_measure, run_jobs
from glowd.flow.evaluation.metrics import MetricError, difference_max
from glowd.flow.evaluation.systems import WAVEGLOW
from glowd.flow.mel import Floats
from glowd.flow.recordings import SUFFIXES, RecordingError, find_recordings

LIVE = "WaveGlow live"
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps work of a known size, counted in a unit, in a progress bar."""


@dataclass(frozen=True, slots=True)
class Render:
    """One system on one sentence."""

    measured: Measured
    samples: Floats


@dataclass(slots=True)
class Renders:
    """What was rendered, and why the rest was not."""

    renders: list[Render] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def extend(self, other: "Renders") -> None:
        """Append another one's renders and notes."""
        self.renders += other.renders
        self.notes += other.notes


def sentences(sources: Iterable[Path], count: int, longest_s: float) -> list[tuple[str, Path]]:
    """(set, recording) of `count` clips: files as given, folders in turn, clips longer than `longest_s` left out.

    Raises RecordingError if there are none.
    """
    turns = itertools.zip_longest(*(_clips(source, longest_s) for source in sources))
    found = [one for turn in turns for one in turn if one][:count]
    if not found:
        raise RecordingError(f"no recording is at most {longest_s:g} s long; raise --longest")
    sets = list(dict.fromkeys(name for name, _ in found))
    return sorted(found, key=lambda one: sets.index(one[0]))


def _clips(source: Path, longest_s: float) -> Iterator[tuple[str, Path]]:
    if source.suffix.lower() in SUFFIXES:
        return iter([(source.parent.name, source)])
    return ((source.name, path) for path in find_recordings(source) if _fits(path, longest_s))


def _fits(path: Path, longest_s: float) -> bool:
    import soundfile

    try:
        return bool(soundfile.info(path).duration <= longest_s)
    except soundfile.SoundFileError:
        return True  # reading it gives the reason


def render_offline(jobs: Sequence[Job], processes: int, progress: Progress) -> Renders:
    """Render and measure every job. A clip that cannot be used becomes a note."""
    found = Renders()
    for result in progress(run_jobs(render_job, jobs, processes), len(jobs), "render"):
        if isinstance(result, Render):
            found.renders.append(result)
            found.notes += scores.skipped([result.measured])
        elif result not in found.notes:
            found.notes.append(result)
    return found


def render_job(job: Job) -> Render | str:
    """One job, in a worker: the render, or why there is none."""
    try:
        return Render(*render_and_measure(job))
    except (RecordingError, MetricError) as error:
        return str(error)


def render_live(jobs: Sequence[Job], offline: Sequence[Render], progress: Progress) -> Renders:
    """Send every job's clip through a daemon with the voice of its system, at the pace of speech.

    What the same voice rendered `offline`, with the same seed, is what the daemon's samples are compared with.
    """
    whole = {
        (one.measured.job.path, one.measured.job.system.checkpoint): one.samples
        for one in offline
        if one.measured.job.system.kind == WAVEGLOW
    }
    # A clip that cannot be used is not among the offline renders; it has its note.
    jobs = [job for job in jobs if (job.path, job.system.checkpoint) in whole]
    found = Renders()
    if not jobs:
        return found
    try:
        with live.running(jobs[0].system.checkpoint) as daemon:
            for job in progress(jobs, len(jobs), "sentence"):
                found.renders.append(_render_live(daemon, job, whole[job.path, job.system.checkpoint]))
                found.notes += scores.skipped([found.renders[-1].measured])
    except (live.LiveError, MetricError) as error:
        found.notes.append(f"{LIVE}: {error}")
    return found


def _render_live(daemon: live.LiveRenderer, job: Job, whole: Floats) -> Render:
    clip = read_clip(job.path, job.format)
    samples = daemon.render(clip.mel, job.format.rate_hz, job.seed)
    figures = figures_of(clip, samples, job.format, job.group)
    figures.values[scores.STREAMED] = difference_max(whole, samples)
    return Render(Measured(job, *figures), samples)
