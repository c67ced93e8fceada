"""Pitch labels of recordings, at the centres of their frames, by two trackers that must agree.

DIO (Morise, Kawahara & Katayose 2009) and Harvest (Morise 2017), each refined by StoneMask, from WORLD (pyworld, in the extra
`train`). Where both find a pitch and the two lie within AGREE_CENTS, their geometric mean is the label; where neither finds one,
the frame is unvoiced; the rest stays unknown, and nobody learns from it.

    f0_hz[f]    above 0: voiced    0: unvoiced    NaN: unknown

Rules: a clip's labels are a file in a cache folder, named by its samples, so that they are found again whatever the clip's
name, and never stale.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.machinery import PathFinder
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from glowd.flow.mel import Floats, MelFormat
from glowd.flow.training.data import Clips
from glowd.flow.training.settings import TrainError

LOW_HZ, HIGH_HZ = 60.0, 650.0
AGREE_CENTS = 60.0


@cache
def world() -> Any:
    """pyworld's compiled module. Its package cannot be imported beside setuptools 81, which has no pkg_resources any more.

    Raises TrainError where it is not installed.
    """
    package = importlib.util.find_spec("pyworld")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("pyworld.pyworld", places) if places else None
    if spec is None or spec.loader is None:
        raise TrainError("labels of pitch need pyworld: pip install 'glowd[train]'")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pitch_labels(audio: Floats, format: MelFormat) -> Floats:
    """Samples [L * hop] -> f0 in Hz [L] as the file's head has it. Raises TrainError without pyworld."""
    return agreed(*tracks(audio, format))


def tracks(audio: Floats, format: MelFormat) -> tuple[Floats, Floats]:
    """Samples [L * hop] -> f0 in Hz by DIO and by Harvest, [L] each, 0 where unvoiced. Raises TrainError without pyworld."""
    frames = len(audio) // format.hop
    dio, harvest = (_tracked(track, audio, format)[:frames] for track in (world().dio, world().harvest))
    return dio, harvest


def agreed(first: Floats, second: Floats) -> Floats:
    """Two tracks [L] -> labels [L] as the file's head has them."""
    voiced = (first > 0) & (second > 0)
    a, b = np.where(voiced, first, 1.0), np.where(voiced, second, 1.0)
    agree = voiced & (np.abs(1200 * np.log2(a / b)) < AGREE_CENTS)
    unvoiced = (first == 0) & (second == 0)
    labels: Floats = np.where(agree, np.sqrt(a * b), np.where(unvoiced, 0.0, np.nan)).astype(np.float32)
    return labels


def _tracked(track: Callable[..., tuple[Any, Any]], audio: Floats, format: MelFormat) -> Any:
    """f0 in Hz at every hop from sample 0 on, 0 where there is none: at least as many as there are frames."""
    wave = audio.astype(np.float64)
    period_ms = 1000 * format.hop / format.rate_hz
    f0_hz, times = track(wave, format.rate_hz, f0_floor=LOW_HZ, f0_ceil=HIGH_HZ, frame_period=period_ms)
    refined = world().stonemask(wave, f0_hz, times, format.rate_hz)
    return np.pad(refined, (0, max(0, len(audio) // format.hop - len(refined))))


def labels_of(clips: Clips, cache_folder: Path, report: Callable[[str], None], workers: int = 0) -> list[Floats]:
    """Labels of every clip, f0 in Hz [L] each; those that the cache has are read from it. `workers` 0: one for each core.

    Raises TrainError without pyworld, or if the cache cannot be written.
    """
    paths = [_path(cache_folder, _samples(clips, index), clips.format) for index in range(clips.count)]
    missing = [index for index, path in enumerate(paths) if not path.is_file()]
    if missing:
        report(f"finding the pitch of {len(missing)} of {clips.count} clips; the labels are kept in {cache_folder}")
        found = _in_processes([_samples(clips, index) for index in missing], clips.format, workers)
        for index, labels in zip(missing, found):
            _keep(paths[index], labels)
    return [np.load(path) for path in paths]


def _in_processes(waves: list[Floats], format: MelFormat, workers: int) -> Iterator[Floats]:
    world()  # its absence is said here, once
    count = min(workers or len(os.sched_getaffinity(0)), len(waves))
    task = partial(pitch_labels, format=format)
    if count == 1:
        yield from map(task, waves)
        return
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        yield from pool.map(task, waves)


def _samples(clips: Clips, index: int) -> Floats:
    samples: Floats = clips.whole(index)[0].numpy()
    return samples


def _path(folder: Path, audio: Floats, format: MelFormat) -> Path:
    asked = f"{format.rate_hz} {format.hop} {LOW_HZ} {HIGH_HZ} {AGREE_CENTS}".encode()
    return folder / f"{hashlib.blake2b(audio.tobytes() + asked, digest_size=12).hexdigest()}.npy"


def _keep(path: Path, labels: Floats) -> None:
    part = path.with_suffix(".part.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(part, labels)
        part.replace(path)
    except OSError as error:
        raise TrainError(f"cannot write labels of pitch, {path}: {error.strerror}") from error
