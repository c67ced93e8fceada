"""Small training runs for tests."""

from pathlib import Path
from typing import Any

import pytest

from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.settings import Settings
from glowd.flow.training.setup import new_run
from glowd.flow.training.trainer import Trainer
from tests.harness.recordings import write_recordings
from tests.harness.voices import PLAIN


def small_settings(tmp_path_factory: pytest.TempPathFactory, **changes: Any) -> Settings:
    """A run of a few steps on recordings that are made for it."""
    root = tmp_path_factory.mktemp("speech")
    data, test = write_recordings(root / "data"), write_recordings(root / "test", 2, first_seed=10)
    base = dict(steps=4, every=2, batch=4, segment_samples=2048, validation_segments=8, warm_up_steps=2)
    return Settings.from_dict({"data": str(data), "test": str(test)} | base | changes)


def silent(line: str) -> None:
    """A report that nobody reads."""


def start(settings: Settings, out: Path, **geometry: Any) -> tuple[Trainer, RunFolder]:
    """A new run of a small voice."""
    folder = RunFolder(out)
    return new_run(folder, settings, PLAIN | geometry, "", silent), folder


def nll(trainer: Trainer) -> float:
    """Validation likelihood of the averaged weights."""
    return trainer.validation.nll(trainer.ema.network)


def spectral(trainer: Trainer) -> float | None:
    """Validation spectral distance of the averaged weights."""
    return trainer.validation.spectral(trainer.ema.network)
