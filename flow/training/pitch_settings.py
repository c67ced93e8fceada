"""The settings of `glowlab pitch`. Rules: no torch, as in settings.py."""

from dataclasses import dataclass

from glowd.flow.options import Options, option


@dataclass(frozen=True, slots=True)
class PitchSettings(Options):
    """A training of a pitch network."""

    data: str = option(help="folder of .flac/.wav clips to train on", metavar="FOLDER")
    test: str = option(help="folder of clips to judge on", metavar="FOLDER")
    steps: int = option(3000, "length of the run in steps", min=1)
    batch: int = option(1024, "frames per step", min=1)
    lr: float = option(2e-3, "peak learning rate", above=0)
    seed: int = option(0, "seed of weights and batches")
    device: str = option("auto", "cpu, cuda, cuda:N or auto")
    threads: int = option(0, "CPU threads; 0: torch decides", min=0)
