"""The files of a training run's folder, each written whole or not at all:

    state.pt            everything that resuming needs: weights, their average, optimisers, generators, settings, curve
    curve.csv           step, seconds, train, validation, lr
    voice.safetensors   the averaged weights in float16 as a checkpoint with its card

Rules: knows files, not networks. The state is read with torch's weights-only loader, so nothing in it can execute. A
write that fails leaves the old file as it was.
"""

import contextlib
import csv
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from flow import checkpoint
from flow.kinds import Config
from flow.recipe import TrainError

STATE_VERSION = 1
STATE, CURVE, VOICE = "state.pt", "curve.csv", "voice.safetensors"
CARD_POINTS = 200


class Point(NamedTuple):
    """One point of the curve. Likelihoods are nats per sample: `train` the mean since the last point, `validation` fixed."""

    step: int
    seconds: float
    train: float
    validation: float
    lr: float


@contextlib.contextmanager
def _guarded(path: Path, last_step: int | None) -> Iterator[None]:
    """Around a write of `path` by way of its .part. Raises TrainError if the disk does not take it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        path.with_name(path.name + ".part").unlink(missing_ok=True)
        kept = "" if last_step is None else f"; the run's state of step {last_step} is intact, go on with --resume"
        raise TrainError(f"cannot write {path}: {error}{kept}") from error


def _replace(path: Path, content: bytes | memoryview) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


class RunFolder:
    """A folder with a run in it. Remembers the last step whose state is safe, to say so when a write fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved_step: int | None = None

    def prepare(self) -> None:
        """Make the folder. Raises TrainError if it cannot be made, or holds a run that would be overwritten."""
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
        with _guarded(self.path / VOICE, self.saved_step):
            checkpoint.save(self.path / VOICE, config, weights, card, half=True)


def _as_csv(curve: list[list[float]]) -> bytes:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([Point._fields, *curve])
    return table.getvalue().encode()


def thinned(curve: list[Point], most: int = CARD_POINTS) -> list[list[float]]:
    """A curve for a card: at most `most` points, the last one among them, rounded."""
    stride = -(-len(curve) // most) or 1
    return [
        [step, round(s, 1), round(a, 4), round(b, 4), float(f"{lr:.3g}")]
        for step, s, a, b, lr in curve[::-stride][::-1]
    ]
