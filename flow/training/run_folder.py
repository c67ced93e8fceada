"""The files of a training run's folder, each written whole or not at all:

    state.pt            everything that resuming needs: weights, their average, optimisers, generators, settings, curve
    curve.csv           step, seconds, train, validation, lr, spectral
    curve.png           its picture, where matplotlib is installed
    voice.safetensors   the averaged weights in float16 as a checkpoint with its card
    samples/step-N/     a few validation sentences as the voice said them after N steps, where they are asked for

Rules: knows files, not networks. The state is read with torch's weights-only loader, so nothing in it can execute. A
write that fails leaves the old file as it was.
"""

import contextlib
import csv
import io
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from glowd.flow import checkpoint
from glowd.flow.mel import Floats
from glowd.flow.network.registry import Config
from glowd.flow.training.data import DataError, write_audio
from glowd.flow.training.settings import TrainError

STATE_VERSION = 1
STATE, CURVE, VOICE = "state.pt", "curve.csv", "voice.safetensors"
PICTURE, SAMPLES = "curve.png", "samples"
CARD_POINTS = 200


class Point(NamedTuple):
    """One point of the curve. Negative log-likelihoods in nats per sample: `train` the mean since the last point,
    `validation` of fixed segments; `spectral` the distance between these and fixed samples, None where it is no part of the loss.
    """

    step: int
    seconds: float
    train: float
    validation: float
    lr: float
    spectral: float | None = None


@contextlib.contextmanager
def _guarded(path: Path, last_step: int | None) -> Iterator[None]:
    """Around a write of `path` by way of its .part. Raises TrainError if the disk does not take it."""
    try:
        yield
    except (OSError, SafetensorError, DataError) as error:
        _discard(path.with_name(path.name + ".part"))
        kept = "" if last_step is None else f"; the run's state of step {last_step} is intact, go on with --resume"
        raise TrainError(f"cannot write {path}: {error}{kept}") from error


def _discard(part: Path) -> None:
    """Best effort: the error that brought us here is the one to tell."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    with contextlib.suppress(OSError):
        part.unlink()


def _replace(path: Path, content: bytes | memoryview) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class RunFolder:
    """A folder with a run in it. Remembers the last step whose state is safe, to say so when a write fails.

    Of several processes that train together only the first one `writes`: for the others all writing is no work.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.saved_step: int | None = None

    def prepare(self) -> None:
        """Make the folder. Raises TrainError if it cannot be made, or holds a run that would be overwritten."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainError(f"cannot make the output folder {self.path}: {error.strerror}") from error
        if (self.path / STATE).exists():
            raise TrainError(f"{self.path} already holds a run; add --resume to go on with it, or give another --out")

    def load(self) -> dict[str, Any]:
        """The state. Raises TrainError if there is none, or it is damaged or of another version."""
        path = self.path / STATE
        if not path.is_file():
            raise TrainError(
                f"{self.path} holds no run to resume ({STATE} is missing); leave out --resume to start one"
            )
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            version = state["version"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise TrainError(f"{path} is damaged ({type(error).__name__}); start anew in another folder") from error
        if version != STATE_VERSION:
            raise TrainError(f"{path} has version {version}; this glowlab reads {STATE_VERSION}")
        self.saved_step = state["step"]
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, and the curve that it holds."""
        if not self.writes:
            return
        # In memory first: torch hides the reason of a failed write behind one of its own.
        buffer = io.BytesIO()
        torch.save({"version": STATE_VERSION} | state, buffer)
        with _guarded(self.path / STATE, self.saved_step):
            _replace(self.path / STATE, buffer.getbuffer())
        self.saved_step = state["step"]
        with _guarded(self.path / CURVE, self.saved_step):
            _replace(self.path / CURVE, _as_csv(state["curve"]))

    def export(self, config: Config, weights: dict[str, Tensor], card: dict[str, Any]) -> None:
        """Write the voice."""
        if not self.writes:
            return
        with _guarded(self.path / VOICE, self.saved_step):
            checkpoint.save(self.path / VOICE, config, weights, card, half=True)

    def write_picture(self, png: bytes) -> None:
        """Write the picture of the curve."""
        with _guarded(self.path / PICTURE, self.saved_step):
            _replace(self.path / PICTURE, png)

    def write_samples(self, step: int, sentences: dict[str, Floats], rate_hz: int) -> None:
        """Write what the voice says after a step, name -> samples [T]; the folder of the step appears when it is whole."""
        path = self.path / SAMPLES / f"step-{step}"
        part = path.with_name(path.name + ".part")
        with _guarded(path, self.saved_step):
            part.mkdir(parents=True, exist_ok=True)
            for name, samples in sentences.items():
                write_audio(part / f"{name}.wav", samples, rate_hz)
            # A run that was killed after this step comes by again.
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)


def _as_csv(curve: list[list[Any]]) -> bytes:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([Point._fields, *curve])
    return table.getvalue().encode()


def thinned(curve: list[Point], most: int = CARD_POINTS) -> list[list[float]]:
    """A curve for a card: at most `most` points, the last one among them, rounded; the spectral distance only if known."""
    stride = -(-len(curve) // most) or 1
    return [
        [step, round(s, 1), round(a, 4), round(b, 4), float(f"{lr:.3g}")] + ([] if d is None else [round(d, 4)])
        for step, s, a, b, lr, d in curve[::-stride][::-1]
    ]
