"""`glowlab pitch`: from folders of recordings to a pitch network in a file, and a line that says how good it is.

Rules: reads folders, reports what it skipped, writes one file and the cache of labels beside it.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from glowd.flow.devices import pick_device
from glowd.flow.mel import Floats
from glowd.flow.network.registry import Config
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.new_file import NewFile
from glowd.flow.training.data import Clips, load_clips
from glowd.flow.training.pitch_file import PitchFile
from glowd.flow.training.pitch_labels import labels_of
from glowd.flow.training.pitch_settings import PitchSettings
from glowd.flow.training.pitch_training import Frames, Judgement, frames_of, judge, train_pitch
from glowd.flow.training.settings import TrainError

LABELS = "pitch-labels"
"""Folder of the cache, beside the file that is written."""
SHORTEST_FRAMES = 20
"""Clips that are shorter are skipped."""


def train_pitch_file(
    settings: PitchSettings, config: Config, out: NewFile, report: Callable[[str], None], workers: int = 0
) -> Judgement:
    """Train a pitch network for voices of `config`, write it to `out`, and judge it on `settings.test`.

    `workers`: processes that find labels; 0: one for each core. Raises TrainError, RecordingError, OSError.
    """
    if not isinstance(config, WaveGlowConfig) or config.source is None:
        raise TrainError("a voice without a source needs no pitch network; leave its preset out of the [voice] table")
    if settings.threads:
        torch.set_num_threads(settings.threads)

    def labelled(folder: str) -> tuple[Clips, list[Floats]]:
        clips = load_clips(Path(folder), config.mel, SHORTEST_FRAMES * config.mel.hop)
        for text in clips.skipped:
            report(f"skipped: {text}")
        return clips, labels_of(clips, out.path.parent / LABELS, report, workers)

    (clips, labels), (test, test_labels) = labelled(settings.data), labelled(settings.test)
    frames, device = frames_of(clips, labels, config.source.pitch.past_frames), pick_device(settings.device)
    report(f"{clips.count} clips, {_shares(frames)}")
    network = train_pitch(settings, config, Frames(*(each.to(device) for each in frames)), report)
    judgement = judge(network, test, test_labels)
    card = {
        "data": {"folder": clips.folder.name, "clips": clips.count, "seconds": round(clips.seconds)},
        "validation_data": {"folder": test.folder.name, "clips": test.count},
        "steps": settings.steps,
    } | judgement._asdict()
    file = PitchFile(config.source.pitch, config.mel, config.mel_mean, config.mel_std, network.state_dict(), card)
    out.file.write(file.as_bytes())
    return judgement


def _shares(frames: Frames) -> str:
    voiced, unvoiced = (frames.f0_hz > 0).sum().item(), (frames.f0_hz == 0).sum().item()
    return f"{voiced} voiced and {unvoiced} unvoiced frames; the trackers disagree about the rest"
