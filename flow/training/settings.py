"""The settings of a training run, each declared once, and the run files that hold them.

Rules: no torch, because `glowlab train --help` is made from `Settings`. The geometry of a network is the network's own
(geometry.py). A run file in TOML may hold both, in two tables:

    [voice]                 keys of the network's config, and `preset` (geometry.py)
    channels = 128
    [train]                 keys of Settings
    batch = 24
"""

import json
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glowd.flow.options import PRECISIONS, Options, option

SEGMENT_S = 16384 / 22050
"""Seconds of a segment where its samples are not given."""
FAVOUR = re.compile(r".+=(\d+\.?\d*|\.\d+)")
FLOOR = 0.02
"""Share of the learning rate that is left at the end of the decay."""


class TrainError(ValueError):
    """A run that cannot start or cannot go on. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Settings(Options):
    """A training run except for its geometry. Part of the run's state, so a resumed run needs none of them again."""

    data: str = option(
        help="folder of .flac/.wav clips to train on (sub-folders too), or of LJ Speech",
        metavar="FOLDER",
    )
    test: str = option(help="folder of clips to validate on", metavar="FOLDER")
    minutes: float = option(60.0, "length of the run", above=0)
    steps: int = option(0, "length of the run in steps; 0: --minutes counts", min=0)
    batch: int = option(12, "segments per step, over all processes", min=1)
    segment_samples: int = option(
        0, "samples per segment, a multiple of the hop; 0: about 0.74 s", min=0, flag="--segment"
    )
    max_silence_s: float = option(
        0.0, "seconds of silence kept at both ends of a training clip; 0: all", min=0, flag="--max-silence"
    )
    colour: float = option(0.0, "share of training segments given another level, tilt and band limit", min=0, max=1)
    pace: float = option(0.0, "share of training segments played 0.85 to 1.25 times as fast", min=0, max=1)
    favour: tuple[str, ...] = option(
        (), 'sub-folders of data whose clips are drawn more often or less, such as "many=2.2"', metavar="FOLDER=WEIGHT"
    )
    lr: float = option(2e-3, "peak learning rate of AdamW; Muon's is ten times as high", above=0)
    warm_up_steps: int = option(100, "steps until the learning rate is reached", min=0, flag="--warm-up")
    decay: float = option(0.5, "share of the run, at its end, over which the learning rate falls", min=0, max=1)
    clip_norm: float = option(5.0, "largest norm of a gradient; a larger one is scaled down", above=0)
    skip_norm: float = option(0.0, "a step whose gradient is longer is left out; 0: none", min=0)
    average: float = option(
        0.999,
        "decay of the moving average of the weights; a short second stage wants less, such as 0.99",
        min=0,
        below=1,
    )
    nll_weight: float = option(1.0, "weight of the negative log-likelihood in the loss", min=0)
    spectral_weight: float = option(0.0, "weight of the spectral distance of samples; 0: no samples", min=0)
    spectral_samples: int = option(
        2, "2: energy distance, keeps samples apart; 1: distance to one sample", choices=(1, 2)
    )
    phase_weight: float = option(0.0, "weight of two samples' agreement in phase, inside the spectral distance", min=0)
    mel_weight: float = option(0.0, "weight of the samples' mel error, inside the spectral distance", min=0)
    comb_weight: float = option(
        0.0, "weight of tones at multiples of rate / group, inside the spectral distance", min=0
    )
    spectral_sigma: float = option(0.0, "standard deviation of these samples' latents; 0: the voice's own sigma", min=0)
    every: int = option(100, "steps between checkpoints, each with validation", min=1)
    samples_every: int = option(0, "steps between renderings of a few validation sentences; 0: never", min=0)
    validation_segments: int = option(64, "segments of the validation set", min=1)
    seed: int = option(0, "seed of weights and batches")
    device: str = option("auto", "cpu, cuda, cuda:N or auto")
    precision: str = option("auto", "number format of the convolutions", choices=PRECISIONS)
    compile: bool = option(False, "compile the network with torch.compile")
    threads: int = option(0, "CPU threads; 0: torch decides", min=0)
    name: str = option("glow", "name of the voice, for its card")
    licence: str = option("not stated", "licence of the voice, for its card")

    def check(self) -> None:
        """Raise OptionError where settings contradict one another."""
        self.require("nll_weight", self.nll_weight + self.spectral_weight > 0, "above 0 where spectral_weight is 0")
        self.require(
            "phase_weight", not self.phase_weight or self.spectral_samples == 2, "0 where spectral_samples is 1"
        )
        for entry in self.favour:
            self.require("favour", FAVOUR.fullmatch(entry) is not None, "FOLDER=WEIGHT, such as many=2.2")

    @property
    def weights(self) -> dict[str, float]:
        """How often the clips of a sub-folder are drawn; 1 where it is not named."""
        return {folder: float(weight) for folder, _, weight in (entry.rpartition("=") for entry in self.favour)}

    def segment_for(self, hop: int, rate_hz: int) -> int:
        """Samples per segment at this hop and rate. Raises TrainError if those that are given are no whole frames."""
        if self.segment_samples % hop:
            raise TrainError(f"--segment is {self.segment_samples}; allowed: multiples of the hop, {hop} samples")
        return self.segment_samples or max(1, round(SEGMENT_S * rate_hz / hop)) * hop

    @property
    def objective(self) -> str:
        """The terms of the loss, in words."""
        spectral = "spectral energy distance" if self.spectral_samples > 1 else "spectral distance"
        weighted = {"likelihood": self.nll_weight, spectral: self.spectral_weight}
        weighted |= {"phase agreement": self.spectral_weight * self.phase_weight}
        weighted |= {"mel error": self.spectral_weight * self.mel_weight}
        weighted |= {"comb": self.spectral_weight * self.comb_weight}
        return " + ".join(name for name, weight in weighted.items() if weight)

    def progress(self, steps: int, seconds: float) -> float:
        """Share of the run that is over, 0 to 1, after this many steps and seconds of it."""
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
