"""A Trainer from settings and files: for a new run, or for one that is resumed.

Rules: reads folders and checkpoints, checks that they fit together, reports what it skipped. Training itself is train.py.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glowd.flow import checkpoint
from glowd.flow.devices import pick_device
from glowd.flow.network.registry import Config, config_from_dict
from glowd.flow.training.data import Clips, load_clips
from glowd.flow.training.distributed import ALONE, World
from glowd.flow.training.geometry import geometry
from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.trainer import Trainer

Report = Callable[[str], None]
NAMED_SKIPS = 10


def new_run(
    folder: RunFolder, settings: Settings, voice: dict[str, Any], init: str, report: Report, world: World = ALONE
) -> Trainer:
    """A trainer for a new run in `folder`. `voice` is the run file's table, `init` a checkpoint to start from or "".

    Raises TrainError, RecordingError or CheckpointError, before anything is written.
    """
    if init and voice:
        raise TrainError(f"--init {init} brings its own geometry; leave the voice settings {', '.join(voice)} out")
    config = checkpoint.read_any_header(init)[0] if init else geometry(voice)
    trainer = _trainer(settings, config, report, world)
    if init:
        trainer.start_from(checkpoint.load_any(init), _origin(init))
    folder.prepare()
    return trainer


def resumed_run(folder: RunFolder, changes: dict[str, Any], report: Report, world: World = ALONE) -> Trainer:
    """A trainer that continues where the run in `folder` was last saved; `changes` override its settings.

    Raises TrainError, OptionError, RecordingError.
    """
    state = folder.load()
    settings = Settings.from_dict(state["settings"] | changes)
    trainer = _trainer(settings, config_from_dict(state.get("kind", "waveglow"), state["config"]), report, world)
    trainer.load_state_dict(state)
    if state.get("clips", trainer.clips.count) != trainer.clips.count:
        report(f"{trainer.clips.count} training clips, {state['clips']} before: the run goes on with other batches")
    report(f"going on from step {trainer.steps}")
    return trainer


def _trainer(settings: Settings, config: Config, report: Report, world: World) -> Trainer:
    # A run may be resumed from another working directory.
    settings = replace(settings, data=str(Path(settings.data).absolute()), test=str(Path(settings.test).absolute()))
    if settings.segment_samples % config.mel.hop:
        raise TrainError(
            f"--segment is {settings.segment_samples}; allowed: multiples of the hop, {config.mel.hop} samples"
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    if world.size > 1 and device.index is not None:
        raise TrainError(
            f"--device is {device}; allowed with {world.size} processes: auto, cpu, cuda (each takes its own)"
        )
    clips = _clips("training", settings.data, settings, config, settings.max_silence_s, report).to(device)
    # The validation set is the same whatever is done to the training clips.
    test = _clips("validation", settings.test, settings, config, 0.0, report).to(device)
    trainer = Trainer(settings, config, clips, test, world)
    parameters = sum(p.numel() for p in trainer.voice.parameters())
    report(f"{parameters / 1e6:.2f} M parameters on {device}, convolutions in {'bf16' if trainer.bf16 else 'float32'}")
    return trainer


def _clips(use: str, folder: str, settings: Settings, config: Config, max_silence_s: float, report: Report) -> Clips:
    clips = load_clips(Path(folder), config.mel, settings.segment_samples, max_silence_s)
    for text in clips.skipped[:NAMED_SKIPS]:
        report(f"skipped: {text}")
    if unnamed := len(clips.skipped[NAMED_SKIPS:]):
        report(f"skipped: {unnamed} more")
    report(f"{use}: {clips.count} clips, {clips.seconds / 60:.1f} minutes of audio")
    return clips


def _origin(init: str) -> dict[str, Any]:
    """What the card keeps of the checkpoint that a run began with: licences are inherited."""
    card = checkpoint.read_any_header(init)[1]
    return {"checkpoint": Path(init).name, "card": {key: value for key, value in card.items() if key != "curve"}}
