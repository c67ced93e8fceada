"""What a training run is told: its settings, its learning rate, its device, its precision.

Rules: plain values and pure functions; nothing here trains or writes. Geometry is the network's own (registry.py); a run
file in TOML may hold both, in two tables:

    [voice]                 keys of WaveGlowConfig, and preset = "streaming" (default) or "stock", the published geometry;
                            or preset = "wavenet" and keys of WaveNetConfig
    channels = 128
    [train]                 keys of Settings
    batch = 24
"""

import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from glowd.flow.network.registry import Config
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.network.wavenet import WaveNetConfig

MUON_RATIO = 10.0
"""Learning rate of Muon over that of AdamW: an orthogonal update has another length."""
PRESETS: dict[str, Config] = {
    "streaming": WaveGlowConfig(),
    "stock": WaveGlowConfig.stock(),
    "wavenet": WaveNetConfig(),
}
FLOOR = 0.02
"""Share of the learning rate that is left at the end of the decay."""


class TrainError(ValueError):
    """A run that cannot start or cannot go on. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A training run but for its geometry. Stands in its state file, so a resumed run needs none of them again."""

    data: str
    test: str
    minutes: float = 60.0
    """Length of the run; counts if `steps` is 0."""
    steps: int = 0
    batch: int = 12
    segment_samples: int = 16384
    colour: float = 0.0
    """Share of the segments that are made to sound like another microphone, level or codec (augment.py)."""
    max_silence_s: float = 0.0
    """Silence at both ends of a training clip is cut to this length; 0 keeps all. Validation clips stay as they are."""
    lr: float = 2e-3
    """Learning rate of AdamW at its height; Muon's is MUON_RATIO times as high."""
    warm_up_steps: int = 100
    decay: float = 0.5
    """Share of the run, at its end, over which the learning rate falls."""
    clip_norm: float = 5.0
    average: float = 0.999
    """Share of the moving average of the weights that a late step keeps; a short second stage wants less, such as 0.99."""
    nll_weight: float = 1.0
    spectral_weight: float = 0.0
    """Weight of the spectral distance between speech and samples beside that of likelihood; 0 is likelihood alone."""
    spectral_samples: int = 2
    """2: the energy distance, which keeps samples apart from each other; 1: the plain distance to one sample."""
    phase_weight: float = 0.0
    """Weight of the phase agreement of two samples inside the spectral distance."""
    mel_weight: float = 0.0
    """Weight of the samples' mel error inside the spectral distance."""
    spectral_sigma: float = 0.0
    """Standard deviation of these samples' latents; 0 is the voice's own."""
    every: int = 100
    """Steps between two points of the curve, each with validation and a checkpoint."""
    samples_every: int = 0
    """Steps between renderings of a few validation sentences; 0 is never."""
    validation_segments: int = 64
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    name: str = "glow"
    licence: str = "not stated"

    def __post_init__(self) -> None:
        for name in ("batch", "segment_samples", "every", "validation_segments"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("steps", "threads", "samples_every", "warm_up_steps"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in ("minutes", "lr", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < math.inf, "more than 0")
        for name in ("decay", "colour"):
            self._require(name, 0 <= getattr(self, name) <= 1, "0 to 1")
        self._require("average", 0 <= self.average < 1, "0 to 1, without 1")
        for name in ("max_silence_s", "nll_weight", "spectral_weight", "phase_weight", "mel_weight", "spectral_sigma"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._require("nll_weight", self.nll_weight + self.spectral_weight > 0, "more than 0 if spectral_weight is 0")
        self._require("spectral_samples", self.spectral_samples in (1, 2), "1 or 2")
        self._require("phase_weight", not self.phase_weight or self.spectral_samples == 2, "0 if spectral_samples is 1")
        self._require("precision", self.precision in ("auto", "bf16", "float32"), "auto, bf16 or float32")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise TrainError(f"training setting {name} is {getattr(self, name)!r}; allowed: {allowed}")

    def to_dict(self) -> dict[str, Any]:
        """A plain map."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "Settings":
        """The inverse of `to_dict`; raises TrainError for an unknown key, a wrong type, a value out of range."""
        types: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        for key, value in table.items():
            if key not in types:
                raise TrainError(f"unknown training setting {key!r}; known: {', '.join(types)}")
            if type(value) is not types[key] and not (types[key] is float and type(value) is int):
                raise TrainError(f"training setting {key} is {value!r}; it must be of type {types[key].__name__}")
        if missing := {"data", "test"} - table.keys():
            raise TrainError(f"training setting {min(missing)} is missing; give --{min(missing)} FOLDER")
        return cls(**table)

    @property
    def objective(self) -> str:
        """What the voice is trained by, in words."""
        spectral = "spectral energy distance" if self.spectral_samples > 1 else "spectral distance"
        weighted = {"likelihood": self.nll_weight, spectral: self.spectral_weight}
        weighted |= {"phase agreement": self.spectral_weight * self.phase_weight}
        weighted |= {"mel error": self.spectral_weight * self.mel_weight}
        return " + ".join(name for name, weight in weighted.items() if weight)

    def progress(self, steps: int, seconds: float) -> float:
        """How much of the run is over, 0 to 1, after so many steps and seconds of it."""
        return min(1.0, steps / self.steps if self.steps else seconds / (60 * self.minutes))

    def learning_rate(self, steps: int, progress: float) -> float:
        """For the step after `steps`: linear warm-up, constant, cosine to FLOOR over the last `decay` of the run."""
        warm = min(1.0, (steps + 1) / max(1, self.warm_up_steps))
        fallen = max(0.0, progress - (1 - self.decay)) / self.decay if self.decay else 0.0
        return self.lr * warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * fallen)))


def read_config(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--config`: a run file's path, or geometry as JSON -> tables (voice, train). Raises TrainError."""
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text), {}
        table = tomllib.loads(Path(text).read_text())
    except OSError as error:
        raise TrainError(
            f'--config {text}: {error.strerror}; give a .toml file or JSON such as {{"flows": 8}}'
        ) from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise TrainError(f"--config {text} cannot be read: {error}") from error
    if unknown := table.keys() - {"voice", "train"}:
        raise TrainError(f"--config {text}: unknown table {min(unknown)!r}; known: voice, train")
    return table.get("voice", {}), table.get("train", {})


def geometry(table: dict[str, Any]) -> Config:
    """A geometry from the `voice` table of a run file. Raises ValueError for an unknown key or an impossible value."""
    table = dict(table)
    preset = table.pop("preset", "streaming")
    if preset not in PRESETS:
        raise TrainError(f"voice preset is {preset!r}; known: {', '.join(PRESETS)}")
    base = PRESETS[preset]
    try:
        return type(base).from_dict(base.to_dict() | table)
    except TypeError as error:
        raise TrainError(f"voice geometry has a value of a wrong type: {error}") from error


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one. Raises TrainError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(
            f"device {name} is not there: torch finds {torch.cuda.device_count()} CUDA devices; try --device cpu"
        )
    return device


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16. `auto` means: where the hardware has it, for emulation is many times slower."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
