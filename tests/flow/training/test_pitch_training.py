"""Pitch: two trackers' labels of a vowel of known pitch, and a network that learns them and goes into a file."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow.mel import Floats, MelFormat
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.new_file import NewFile
from glowd.flow.training import pitch_labels as labelling
from glowd.flow.training.data import load_clips
from glowd.flow.training.pitch_command import LABELS, train_pitch_file
from glowd.flow.training.pitch_file import read_pitch
from glowd.flow.training.pitch_labels import labels_of, pitch_labels
from glowd.flow.training.pitch_settings import PitchSettings
from glowd.flow.training.pitch_training import Frames, frames_of, judge, train_pitch, varied
from glowd.flow.training.settings import TrainError
from tests.harness.training import silent
from tests.harness.voices import sourced

pytestmark = pytest.mark.usefixtures("one_thread")
RATE_HZ, HOP = 22050, 256


def vowel(f0_hz: float, depth: float = 0.2, seconds: float = 1.0) -> tuple[Floats, Floats]:
    """Samples [L * hop] of a gliding vowel between two silences, and its pitch in Hz at every sample."""
    t = np.arange(int(seconds * RATE_HZ) // HOP * HOP) / RATE_HZ
    pitch = f0_hz * (1 + depth * np.sin(2 * np.pi * 0.8 * t))
    phase = 2 * np.pi * pitch.cumsum() / RATE_HZ
    tones = sum(np.cos(k * phase) / k for k in range(1, 15))
    loud = (t > 0.2 * seconds) & (t < 0.8 * seconds)
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(t))
    return (0.15 * tones * loud + noise).astype(np.float32), pitch.astype(np.float32)


def write_vowels(folder: Path) -> Path:
    folder.mkdir()
    for f0_hz in (110, 160, 230):
        soundfile.write(folder / f"{f0_hz}.wav", vowel(f0_hz)[0], RATE_HZ)
    return folder


def small() -> WaveGlowConfig:
    """A voice whose pitch network has bins."""
    config = sourced()
    assert config.source is not None
    return replace(config, source=replace(config.source, pitch=replace(config.source.pitch, bins=60)))


# -------------------------------------------------------------------- labels


def test_labels_of_a_vowel_are_its_pitch() -> None:
    audio, pitch = vowel(150)
    found, true = pitch_labels(audio, MelFormat()), pitch[::HOP]
    assert found.shape == true.shape and found.dtype == np.float32
    cents = 1200 * np.log2(found[25:60] / true[25:60])
    assert np.isfinite(cents).all() and np.abs(cents).max() < 20
    assert not (found[:10] > 0).any() and (found == 0).any()


def test_frames_of_disagreement_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"dio": [100.0, 100, 100, 0, 0], "harvest": [103.0, 104, 200, 100, 0]}

    class World:
        def __getattr__(self, name: str) -> object:
            return lambda *given, **named: (np.array(found[name]), None)

        def stonemask(self, wave: object, f0_hz: object, times: object, rate_hz: int) -> object:
            return f0_hz

    monkeypatch.setattr(labelling, "world", World)
    labels = pitch_labels(np.zeros(5 * HOP, np.float32), MelFormat())
    assert labels[0] == pytest.approx(math.sqrt(10300)) and np.isnan(labels[1:4]).all() and labels[4] == 0


def test_labels_are_kept_by_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, lines = write_vowels(tmp_path / "data"), []  # type: ignore[var-annotated]
    first = labels_of(load_clips(data, MelFormat(), 2048), tmp_path / "kept", lines.append, workers=1)
    assert "finding the pitch of 3 of 3 clips" in lines[0] and len(list((tmp_path / "kept").iterdir())) == 3
    monkeypatch.setattr(labelling, "pitch_labels", None)  # would be called, were anything missing
    (data / "110.wav").rename(data / "renamed.wav")
    again = labels_of(load_clips(data, MelFormat(), 2048), tmp_path / "kept", lines.append, workers=1)
    assert len(lines) == 1 and all(np.array_equal(a, b, equal_nan=True) for a, b in zip([*first[1:], first[0]], again))


def test_missing_pyworld_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    labelling.world.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainError, match=r"need pyworld: pip install 'glowd\[train\]'"):
        pitch_labels(np.zeros(5 * HOP, np.float32), MelFormat())


# ------------------------------------------------------------------ training


def test_window_ends_with_its_frame() -> None:
    frames = Frames(torch.arange(20.0)[:, None].expand(-1, 3), torch.zeros(20))
    assert frames.windows(torch.tensor([5, 9]), 2)[:, :, 0].tolist() == [[3, 4, 5], [7, 8, 9]]


def test_variation_keeps_to_the_range_of_mels() -> None:
    windows, random = torch.full((64, 6, 80), -4.0), torch.Generator().manual_seed(0)
    changed = varied(windows, small(), random)
    assert changed.shape == windows.shape and changed.std() > 1
    assert changed.min() >= small().mel_lowest - 1e-6 and changed.max() <= 2.5
    assert 3 < ((changed[:, :, -1] - small().mel_lowest).abs() < 1e-5).all(1).sum() < 40, "some are band limited"


def test_network_learns_the_pitch_of_vowels(tmp_path: Path) -> None:
    data = str(write_vowels(tmp_path / "data"))
    settings = PitchSettings(data, data, steps=250, batch=128, lr=4e-3)
    out, lines = tmp_path / "new" / "pitch.safetensors", []  # type: ignore[var-annotated]
    out.parent.mkdir()
    with NewFile(out) as new:
        judged = train_pitch_file(settings, small(), new, lines.append, workers=1)
    assert judged.median_cents < 40 and judged.beyond_200_cents < 0.1 and judged.voicing > 0.85
    assert any("voiced and" in line for line in lines) and (tmp_path / "new" / LABELS).is_dir()
    file = read_pitch(out)
    assert file.card["median_cents"] == judged.median_cents and file.card["data"]["clips"] == 3
    clips = load_clips(Path(data), MelFormat(), 2048)
    labels = labels_of(clips, tmp_path / "new" / LABELS, silent, workers=1)
    assert judge(file.network(), clips, labels) == judged
    assert str(judged).startswith(f"median {judged.median_cents:.1f} cents")


def test_recordings_without_pitch_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "a.wav", np.zeros(RATE_HZ, np.float32), RATE_HZ)
    clips = load_clips(tmp_path / "data", MelFormat(), 2048)
    labels = [np.zeros(len(clips.mel.T), np.float32)]
    with pytest.raises(TrainError, match="no frame whose pitch is certain"):
        train_pitch(PitchSettings("data", "data"), small(), frames_of(clips, labels, 5), silent)
