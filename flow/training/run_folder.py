"""The files of a training run's folder, each written whole or not at all:

    state.pt            everything that resuming needs: weights, their average, optimisers, generators, settings, curve
    curve.csv           step, seconds, train, validation, lr, spectral
    curve.png           its picture, where matplotlib is installed
    voice.safetensors   the averaged weights in float16 as a checkpoint with its card
    samples/step-N/     a few validation sentences as the voice rendered them after N steps, with --samples-every

Rules: knows files, not networks. The state is read with torch's weights-only loader, so nothing in it can execute. A
write that fails leaves the old file as it was.
"""

import contextlib
import io
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from glowd.flow import checkpoint
from glowd.flow.mel import Floats
from glowd.flow.network.registry import Config
from glowd.flow.new_file import PUBLIC, NewFile
from glowd.flow.recordings import RecordingError, write_audio
from glowd.flow.training.curve import as_csv
from glowd.flow.training.settings import TrainError

STATE_VERSION = 1
STATE, CURVE, VOICE = "state.pt", "curve.csv", "voice.safetensors"
PICTURE, SAMPLES = "curve.png", "samples"


@contextlib.contextmanager
def _guarded(path: Path, last_step: int | None) -> Iterator[None]:
    """Around a write of `path` by way of its .part. Raises TrainError if the write fails."""
    try:
        yield
    except (OSError, SafetensorError, RecordingError) as error:
        _discard(path.with_name(path.name + ".part"))
        kept = "" if last_step is None else f"; the run's state of step {last_step} is intact, go on with --resume"
        raise TrainError(f"cannot write {path}: {error}{kept}") from error


def _discard(part: Path) -> None:
    """Best effort: the error that led here is the one to report."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    with contextlib.suppress(OSError):
        part.unlink()


def _replace(path: Path, content: bytes | memoryview) -> None:
    with NewFile(path, replace=True, mode=PUBLIC) as new:
        new.file.write(content)
        new.file.flush()
        os.fsync(new.file.fileno())


class RunFolder:
    """A folder with a run in it. `saved_step` is the last step whose state is on disk; errors of writing name it.

    Of several processes that train together only the leader `writes`; in the others the methods that write do nothing.
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
            raise TrainError(
                f"{path} is damaged ({type(error).__name__}); start a new run in another folder"
            ) from error
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
            _replace(self.path / CURVE, as_csv(state["curve"]).encode())

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
        """Write what the voice renders after a step, name -> samples [T]. The step's folder appears when it is complete."""
        path = self.path / SAMPLES / f"step-{step}"
        part = path.with_name(path.name + ".part")
        with _guarded(path, self.saved_step):
            part.mkdir(parents=True, exist_ok=True)
            for name, samples in sentences.items():
                write_audio(part / f"{name}.wav", samples, rate_hz)
            # A run that was killed after this step reaches it again.
            shutil.rmtree(path, ignore_errors=True)
            part.replace(path)
