"""A Trainer from settings and files: for a new run, or for one that is resumed.

Rules: reads folders and checkpoints, checks that they fit together, reports what it skipped. Training itself is train.py.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glowd.flow import checkpoint
from glowd.flow.devices import pick_device
from glowd.flow.network.registry import Config, Network, build, config_from_dict
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.training.data import Clips, load_clips
from glowd.flow.training.distributed import ALONE, World
from glowd.flow.training.geometry import geometry
from glowd.flow.training.locked_phase import lock
from glowd.flow.training.pitch_file import PitchFile, read_pitch
from glowd.flow.training.run_folder import RunFolder
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.trainer import PITCH, Trainer

Report = Callable[[str], None]
Weights = dict[str, Tensor]
NAMED_SKIPS = 10


def new_run(
    folder: RunFolder,
    settings: Settings,
    voice: dict[str, Any],
    init: str,
    report: Report,
    world: World = ALONE,
    pitch: str = "",
) -> Trainer:
    """A trainer for a new run in `folder`. `voice` is the run file's table, `init` a checkpoint to start from or "".

    `pitch` is the file of a pitch network for a voice with a source; "": that of `init`. Raises TrainError, RecordingError or
    CheckpointError, before anything is written.
    """
    if init and voice:
        raise TrainError(f"--init {init} brings its own geometry; leave the voice settings {', '.join(voice)} out")
    config = checkpoint.read_any_header(init)[0] if init else geometry(voice)
    first = checkpoint.load_any(init) if init else None
    file = read_pitch(Path(pitch)) if pitch else None
    config, weights = _pitch(config, first, file)
    trainer = _trainer(settings, config, weights, report, world)
    if first is not None:
        trainer.start_from(first, _origin(init))
    if file is not None:
        trainer.origin["pitch"] = file.card
    folder.prepare()
    return trainer


def _pitch(config: Config, first: Network | None, file: PitchFile | None) -> tuple[Config, Weights]:
    """The geometry with its pitch network, and the weights of that; none for a network without a source."""
    if file is not None:
        if not isinstance(config, WaveGlowConfig):
            raise TrainError("--pitch is for a voice with a source, and a WaveNet has none; leave it out")
        return file.inside(config), file.weights
    if not _has_source(config):
        return config, {}
    if first is None:
        raise TrainError(
            "a new voice with a source needs a pitch network: make one with glowlab pitch and give it as --pitch FILE, "
            'or choose preset = "plain", which has no source'
        )
    return config, _of_pitch(first.state_dict())


def _has_source(config: Config) -> bool:
    """Whether a network of this geometry is told the phase of what it learns."""
    return isinstance(config, WaveGlowConfig) and config.source is not None


def _of_pitch(weights: Weights) -> Weights:
    """Those of a voice's pitch network, under its own names."""
    return {key.removeprefix(PITCH): value for key, value in weights.items() if key.startswith(PITCH)}


def resumed_run(folder: RunFolder, changes: dict[str, Any], report: Report, world: World = ALONE) -> Trainer:
    """A trainer that continues where the run in `folder` was last saved; `changes` override its settings.

    Raises TrainError, OptionError, RecordingError.
    """
    state = folder.load()
    settings = Settings.from_dict(state["settings"] | changes)
    config = config_from_dict(state.get("kind", "waveglow"), state["config"])
    trainer = _trainer(settings, config, _of_pitch(state["voice"]), report, world)
    trainer.load_state_dict(state)
    if state.get("clips", trainer.clips.count) != trainer.clips.count:
        report(f"{trainer.clips.count} training clips, {state['clips']} before: the run goes on with other batches")
    report(f"going on from step {trainer.steps}")
    return trainer


def _trainer(settings: Settings, config: Config, pitch: Weights, report: Report, world: World) -> Trainer:
    # A run may be resumed from another working directory.
    settings = replace(settings, data=str(Path(settings.data).absolute()), test=str(Path(settings.test).absolute()))
    settings = replace(settings, segment_samples=settings.segment_for(config.mel.hop, config.mel.rate_hz))
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    if world.size > 1 and device.index is not None:
        raise TrainError(
            f"--device is {device}; allowed with {world.size} processes: auto, cpu, cuda (each takes its own)"
        )
    clips = _clips("training", settings.data, settings, config, settings.max_silence_s, report)
    # The validation set is the same whatever is done to the training clips.
    test = _clips("validation", settings.test, settings, config, 0.0, report)
    if pitch:
        _lock(config, pitch, (clips, test), report)
    trainer = Trainer(settings, config, clips.to(device), test.to(device), world)
    if pitch:
        trainer.use_pitch(pitch)
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


def _lock(config: Config, pitch: Weights, sets: tuple[Clips, ...], report: Report) -> None:
    """Give clips the phase that they have by a pitch network of these weights."""
    voice = build(config)
    assert isinstance(voice, WaveGlow) and voice.pitch is not None
    voice.pitch.load_state_dict(pitch)
    report("finding the phase of every clip's fundamental")
    for clips in sets:
        lock(clips, voice)


def _origin(init: str) -> dict[str, Any]:
    """What the card keeps of the checkpoint that a run began with: licences are inherited."""
    card = checkpoint.read_any_header(init)[1]
    return {"checkpoint": Path(init).name, "card": {key: value for key, value in card.items() if key != "curve"}}
