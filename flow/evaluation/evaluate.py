"""Measuring systems on recordings: every clip, system and seed is one job of a pool of processes, every metric one figure.

Rules: jobs and figures are plain data; metrics.py computes the figures, scores.py tabulates them. A clip that cannot be used,
or a metric that cannot be taken of a render, does not end an evaluation: it is named with the reason.
"""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from glowd.flow.evaluation import metrics
from glowd.flow.evaluation.likelihood import nll
from glowd.flow.evaluation.metrics import MetricError, Pitch
from glowd.flow.evaluation.systems import REAL, System, build, format_of, group_of, network
from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.recordings import RecordingError, find_recordings, read_speech


class EvaluateError(ValueError):
    """An evaluation that cannot start or cannot go on. The text says why and what to do."""


@dataclass(frozen=True)
class Clip:
    """A recording cut to whole frames, and its mel."""

    path: Path
    audio: Floats  # [L * hop]
    mel: Floats  # [L, M]
    format: MelFormat

    @cached_property
    def pitch(self) -> Pitch:
        """Its pitch, which every system is compared with."""
        return metrics.pitch(self.audio, self.format)


def read_clip(path: Path, format: MelFormat) -> Clip:
    """Read a recording. Raises RecordingError if it cannot be read, and MetricError if it is silent or too short."""
    audio = read_speech(path, format.rate_hz)
    metrics.require_sound(audio, format.rate_hz, str(path))
    frames = len(audio) // format.hop
    audio = audio[: frames * format.hop]
    return Clip(path, audio, log_mel(audio, format)[:frames], format)


@dataclass(frozen=True, slots=True)
class Job:
    """One render to be measured."""

    set: str
    path: Path
    system: System
    seed: int
    format: MelFormat
    group: int
    speaker: str = ""
    """The folder inside the set that the recording lies in; empty where it lies in none."""
    stranger: bool = False
    """Whether the voices were not trained on the speaker."""


class Figures(NamedTuple):
    """How far a render is from its recording; fields as in `Measured`."""

    values: dict[str, float]
    comb_db: list[float]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one job."""

    job: Job
    values: dict[str, float]
    """Figures by metric; one that could not be taken is absent."""
    comb_db: list[float]
    """Level of each tooth of the comb."""
    problems: list[str] = field(default_factory=list)
    """Why figures are absent."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A clip that could not be used."""

    job: Job
    text: str


# ---- one job


def figures_of(clip: Clip, samples: Floats, format: MelFormat, group: int) -> Figures:
    """Samples [L * hop] compared with the clip that they render. `group`: G, for the comb.

    They are measured as a listener hears them, clipped at full scale: a render that diverged counts as noise.
    """
    problems: list[str] = []
    rate_hz = format.rate_hz
    peak = metrics.peak(samples)
    values = {"peak": peak, "overload": float(peak > metrics.OVERLOAD)}
    if values["overload"]:
        problems.append(f"diverged: peak {peak:.3g}, full scale is 1")
    samples = metrics.as_heard(samples)
    try:
        metrics.require_sound(samples, rate_hz, "the render")
    except MetricError as error:
        return Figures(values, [], [*problems, str(error)])
    for name, metric in _metrics(clip, samples, format).items():
        try:
            values[name] = metric()
        except MetricError as error:
            problems.append(f"{name}: {error}")
    try:
        comb = metrics.comb_levels_db(samples, group).tolist()
    except MetricError as error:
        comb = []
        problems.append(f"comb: {error}")
    return Figures(values, comb, problems)


def _metrics(clip: Clip, samples: Floats, format: MelFormat) -> dict[str, Callable[[], float]]:
    """The metrics by name; each may raise MetricError when it is taken."""
    rate_hz = format.rate_hz
    mel = log_mel(samples, format)[: len(clip.mel)]
    pitch = metrics.pitch(samples, format)
    return {
        "pesq": lambda: metrics.pesq_wb(clip.audio, samples, rate_hz),
        "stoi": lambda: metrics.stoi(clip.audio, samples, rate_hz),
        "estoi": lambda: metrics.stoi(clip.audio, samples, rate_hz, extended=True),
        "mel_mae": lambda: metrics.mel_mae(clip.mel, mel),
        "mcd_db": lambda: metrics.mel_cepstral_distortion_db(clip.mel, mel),
        "mrstft": lambda: metrics.multi_resolution_stft(clip.audio, samples, rate_hz),
        "dnsmos": lambda: metrics.dnsmos_ovrl(samples, rate_hz),
        "f0_cents": lambda: metrics.f0_median_cents(clip.pitch, pitch),
        "f0_gross": lambda: metrics.f0_gross(clip.pitch, pitch),
        "voicing_f1": lambda: metrics.voicing_f1(clip.pitch, pitch),
    }


def measure(job: Job) -> Measured | Problem:
    """Render and measure. Every error that a recording can cause comes back as a Problem."""
    try:
        return render_and_measure(job)[0]
    except (RecordingError, MetricError) as error:
        return Problem(job, str(error))


def render_and_measure(job: Job) -> tuple[Measured, Floats]:
    """The same, with the samples [L * hop]. Raises RecordingError or MetricError for a clip that cannot be used."""
    clip = _clip(job.path, job.format)
    if job.system.kind == REAL:
        return Measured(job, *figures_of(clip, clip.audio, job.format, job.group)), clip.audio
    renderer = _warm_renderer(job.system, job.format)
    began_s = time.process_time()
    samples = renderer(clip.mel, job.seed)
    seconds = time.process_time() - began_s
    figures = figures_of(clip, samples, job.format, job.group)
    figures.values["rtf"] = seconds / (len(clip.audio) / job.format.rate_hz)
    if job.system.checkpoint and job.seed == 0:  # it does not depend on the seed
        figures.values["nll"] = nll(network(job.system.checkpoint), clip.audio, job.format)
    if job.system.offline:
        whole = _warm_renderer(job.system.offline, job.format)(clip.mel, job.seed)
        difference = metrics.difference_max(metrics.as_heard(whole), metrics.as_heard(samples))
        figures.values["streamed_difference"] = difference
    return Measured(job, *figures), metrics.as_heard(samples)


@lru_cache(maxsize=4)
def _clip(path: Path, format: MelFormat) -> Clip:
    return read_clip(path, format)


@lru_cache(maxsize=64)
def _warm_renderer(system: System, format: MelFormat) -> Callable[[Floats, int], Floats]:
    """A renderer that has run once, so that the extra time of a first call is in no figure."""
    renderer = build(system, format)
    renderer(np.full((8, format.n_mels), -5.0, np.float32), 0)
    return renderer


# ---- all jobs


def plan_jobs(
    folders: Sequence[Path], systems: Sequence[System], seeds: int, most: int, strangers: Sequence[Path] = ()
) -> list[Job]:
    """Jobs for at most `most` clips (0: all) of each folder, clip by clip. Of a folder with a folder for each speaker, the
    clips come from the speakers in turn. `strangers`: folders of speakers that the voices were not trained on.

    Raises RecordingError for an empty folder.
    """
    format, group = format_of(systems), group_of(systems)
    sets = {folder.name or str(folder): folder for folder in (*folders, *strangers)}
    if len(sets) < len(folders) + len(strangers):
        raise EvaluateError("two data folders have the same name; give folders whose last parts differ")
    return [
        Job(name, path, system, seed, format, group, speaker, folder in strangers)
        for name, folder in sets.items()
        for speaker, path in _in_turn(folder)[: most or None]
        for system in systems
        for seed in range(seeds if system.seeded else 1)
    ]


def _in_turn(folder: Path) -> list[tuple[str, Path]]:
    """(speaker, recording): the first of each speaker, then the second of each, ..."""
    speakers: dict[str, list[Path]] = {}
    for path in find_recordings(folder):
        inside = path.relative_to(folder).parts
        speakers.setdefault(inside[0] if len(inside) > 1 else "", []).append(path)
    turns = itertools.zip_longest(*speakers.values())
    return [(speaker, path) for turn in turns for speaker, path in zip(speakers, turn) if path]


def _start_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    torch.set_num_threads(1)


Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """Work in `processes` of one thread each; results as they are ready. Raises EvaluateError if a process dies."""
    # BLAS and OpenMP read their number of threads when they load, so the workers inherit it.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_worker)
    try:
        waiting: list[Future[Result]] = [pool.submit(work, job) for job in jobs]
        for done in as_completed(waiting):
            yield done.result()
    except BrokenProcessPool as error:
        raise EvaluateError("a worker process died (out of memory?); try fewer with --jobs") from error
    finally:
        pool.shutdown(cancel_futures=True)
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
