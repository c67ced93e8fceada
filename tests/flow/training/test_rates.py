"""Voices of other rates and mel formats: their geometry, and runs of a few steps from recordings to samples."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow import checkpoint
from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.new_file import NewFile
from glowd.flow.streaming import ExactVocoder, VocoderOptions, whole
from glowd.flow.training.geometry import geometry
from glowd.flow.training.pitch_command import train_pitch_file
from glowd.flow.training.pitch_labels import pitch_labels
from glowd.flow.training.pitch_settings import PitchSettings
from glowd.flow.training.run_folder import SAMPLES, VOICE, RunFolder
from glowd.flow.training.settings import SEGMENT_S, Settings, TrainError, read_config
from glowd.flow.training.setup import new_run
from glowd.flow.training.spectral import WINDOWS, windows_at
from glowd.flow.training.train import train
from glowd.flow.vocoder import render
from tests.harness.recordings import voice_like, write_recordings
from tests.harness.training import silent
from tests.harness.voices import SMALL_SOURCE, random_voice

pytestmark = pytest.mark.usefixtures("one_thread")

MELS: dict[str, Any] = {
    "cosyvoice2": "cosyvoice2",
    "vocos": "vocos",
    "16k": {"rate_hz": 16000, "n_fft": 800, "win": 800, "hop": 200},
    "44k": {"preset": "bigvgan-44k", "n_mels": 80},
}


# -------------------------------------------------------------------- geometry


def test_cosyvoice2_is_what_its_toolkit_says() -> None:
    config = geometry({"mel": "cosyvoice2"})
    recipe = Path(__file__).parents[3] / "flow" / "recipes" / "cosyvoice2.toml"
    assert geometry(read_config(str(recipe))[0]) == config
    assert isinstance(config, WaveGlowConfig) and config.source is not None
    assert config.mel == MelFormat(rate_hz=24000, n_fft=1920, win=1920, hop=480, centre=False)
    assert config.group == 80 and 480 % config.group == 0 and WaveGlowConfig.from_dict(config.to_dict()) == config


def test_geometry_without_a_mel_is_as_ever() -> None:
    assert geometry({}) == geometry({"mel": "tacotron2"}) == geometry({"mel": {}}) == WaveGlowConfig.sourced()


@pytest.mark.parametrize("name", MELS)
def test_levels_of_a_format_are_near_those_of_speech(name: str) -> None:
    config = geometry({"mel": MELS[name]})
    assert isinstance(config, WaveGlowConfig) and config.mel_highest is not None
    audio = voice_like(1.0, 2, config.mel.rate_hz)
    usual = log_mel(voice_like(1.0, 2))
    mel = log_mel(audio, config.mel)
    # As far above the usual mel as the levels are above the usual ones.
    assert np.quantile(mel, 0.95) - np.quantile(usual, 0.95) == pytest.approx(config.mel_mean + 5.6, abs=1.0)
    assert config.mel_highest - config.mel_mean == pytest.approx(8.1) and mel.max() < config.mel_highest


@pytest.mark.parametrize(("rate_hz", "top_hz"), [(8000, 4000), (16000, 8000), (48000, 8000)])
def test_harmonics_end_below_half_the_rate(rate_hz: int, top_hz: float) -> None:
    config = geometry({"mel": {"rate_hz": rate_hz, "fmax_hz": 4000}})
    assert isinstance(config, WaveGlowConfig) and config.source is not None and config.source.top_hz == top_hz


def test_what_the_table_states_is_kept() -> None:
    config = geometry({"mel": "cosyvoice2", "group": 60, "mel_mean": -4.4, "mel_highest": None})
    assert isinstance(config, WaveGlowConfig)
    assert (config.group, config.mel_mean, config.mel_highest) == (60, -4.4, None)
    stock = geometry({"preset": "stock", "mel": "cosyvoice2"})
    assert isinstance(stock, WaveGlowConfig) and stock.group == 8
    assert (stock.cond_channels, stock.upsample_kernel) == (640, 1920)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"mel": "cosyvoice"}, "unknown mel format 'cosyvoice'; did you mean cosyvoice3 or cosyvoice2"),
        ({"mel": "db"}, "'db' is a scale, which the daemon converts for every voice"),
        ({"mel": "styletts2"}, "'styletts2' has energies (power = 2); a voice reads magnitudes"),
        ({"mel": {"log": "db"}}, "'log' is nothing that a voice can differ in; known: preset, rate_hz"),
        ({"mel": {"preset": "f5", "fmax_hz": 13000}}, "fmin_hz < fmax_hz <= 12000, half of rate_hz"),
        ({"mel": {"rate_hz": 1e9}}, "mel format key rate_hz is 1000000000.0; allowed: an integer"),
        ({"mel": {"rate_hz": 192_000}}, "mel must be a format of 8000 to 96000 Hz"),
        ({"mel": 24000}, "mel is 24000; allowed: the name of a preset, or a table"),
        ({"mel": {"hop": 275}}, "the hop, 275, is odd, and a group is an even divisor of it"),
        ({"mel": "f5", "group": 48}, "group must be a divisor of the hop, 256; got 48"),
        ({"mel": "f5", "layers": "six"}, "layers must be a whole number"),
    ],
)
def test_impossible_mel_is_refused(table: dict[str, Any], error: str) -> None:
    with pytest.raises(TrainError, match=re.escape(error)):
        geometry(table)


# -------------------------------------------------------------------- what depends on the rate


@pytest.mark.parametrize(
    ("hop", "rate_hz", "samples"),
    [(256, 22050, 16384), (480, 24000, 17760), (256, 24000, 17920), (200, 16000, 11800), (512, 44100, 32768)],
)
def test_segment_lasts_as_long_at_any_rate(hop: int, rate_hz: int, samples: int) -> None:
    settings = Settings("a", "b")
    assert settings.segment_for(hop, rate_hz) == samples and samples % hop == 0
    assert samples / rate_hz == pytest.approx(SEGMENT_S, abs=hop / rate_hz)
    assert replace(settings, segment_samples=4 * hop).segment_for(hop, rate_hz) == 4 * hop
    with pytest.raises(TrainError, match=rf"--segment is {hop + 1}; allowed: multiples of the hop, {hop} samples"):
        replace(settings, segment_samples=hop + 1).segment_for(hop, rate_hz)


@pytest.mark.parametrize(
    ("rate_hz", "factor"), [(8000, 0.5), (16000, 1), (22050, 1), (24000, 1), (44100, 2), (48000, 2)]
)
def test_spectral_windows_keep_their_seconds(rate_hz: int, factor: float) -> None:
    assert windows_at(rate_hz) == tuple(size * factor for size in WINDOWS)


@pytest.mark.parametrize("name", MELS)
def test_pitch_labels_lie_on_the_frames_of_a_format(name: str) -> None:
    format = geometry({"mel": MELS[name]}).mel
    t = np.arange(format.rate_hz // format.hop * format.hop) / format.rate_hz
    f0_hz = 150 + 40 * np.sin(2 * np.pi * 0.8 * t)
    phase = 2 * np.pi * f0_hz.cumsum() / format.rate_hz
    audio = 0.1 * np.sum([np.cos(k * phase) / k for k in range(1, 15)], 0)
    labels, true = pitch_labels(audio.astype(np.float32), format), f0_hz[:: format.hop]
    inner = slice(10, -10)
    assert labels.shape == true.shape and (labels[inner] > 0).mean() > 0.9
    assert np.nanmax(np.abs(labels[inner] - true[inner])[labels[inner] > 0]) < 1.5


# -------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("speech")
    return str(write_recordings(root / "data", 3)), str(write_recordings(root / "test", 1, first_seed=10))


@pytest.mark.parametrize("name", MELS)
def test_compiled_voice_of_a_format_equals_its_definition(name: str) -> None:
    config = geometry({"mel": MELS[name], "sigma": 0.5} | SMALL_SOURCE)
    assert isinstance(config, WaveGlowConfig)
    voice = random_voice(config)
    mel = log_mel(voice_like(0.5, 3, config.mel.rate_hz), config.mel)
    compiled, torch_ = (
        render(ExactVocoder(voice, VocoderOptions(backend=backend)), mel, seed=2) for backend in ("compiled", "torch")
    )
    assert np.abs(compiled).max() > 1e-3 and np.abs(compiled - torch_).max() < 1e-4


def write_pitch(speech: tuple[str, str], table: dict[str, Any], out: Path) -> None:
    with NewFile(out) as new:
        train_pitch_file(PitchSettings(*speech, steps=3, batch=32), geometry(table), new, silent, workers=1)


@pytest.mark.parametrize("name", MELS)
def test_voice_of_a_format_is_trained_and_streams(name: str, speech: tuple[str, str], tmp_path: Path) -> None:
    table = {"mel": MELS[name]} | SMALL_SOURCE
    pitch = tmp_path / "pitch.safetensors"
    write_pitch(speech, table, pitch)
    settings = Settings(
        *speech, steps=2, every=2, batch=2, validation_segments=2, warm_up_steps=1, samples_every=2, colour=0.5,
        spectral_weight=1.0, mel_weight=1.0, phase_weight=0.3, seed=1,
    )  # fmt: skip
    # A clip lasts 1 s: four frames and a segment of 0.74 s fit in.
    folder = RunFolder(tmp_path / "run")
    trainer = new_run(folder, settings, table, "", silent, pitch=str(pitch))
    format = trainer.config.mel
    assert trainer.settings.segment_samples == settings.segment_for(format.hop, format.rate_hz)
    assert train(trainer, folder, silent)
    voice = checkpoint.load(tmp_path / "run" / VOICE)
    assert voice.config == geometry(table) and voice.config.mel == format
    assert all(torch.isfinite(value).all() for value in voice.state_dict().values())
    sentence, rate_hz = soundfile.read(next((tmp_path / "run" / SAMPLES / "step-2").glob("*.wav")))
    assert rate_hz == format.rate_hz and len(sentence) == rate_hz // format.hop * format.hop
    mel = log_mel(voice_like(0.6, 10, rate_hz), format)
    streamed = render(ExactVocoder(voice), mel, seed=5, chunk_frames=3)
    assert streamed.shape == (len(mel) * format.hop,) and 0 < np.abs(streamed).max() <= 1
    np.testing.assert_array_equal(streamed, whole(voice, mel, seed=5))


def test_pitch_network_of_another_format_is_refused(speech: tuple[str, str], tmp_path: Path) -> None:
    pitch = tmp_path / "pitch.safetensors"
    own, other = ({"mel": mel} | SMALL_SOURCE for mel in ("cosyvoice2", "vocos"))
    write_pitch(speech, own, pitch)
    with pytest.raises(TrainError, match="train one on the voice's mels"):
        new_run(RunFolder(tmp_path / "run"), Settings(*speech, steps=1), other, "", silent, pitch=str(pitch))
    with pytest.raises(TrainError, match="a voice without a source needs no pitch network"):
        write_pitch(speech, {"preset": "plain"}, tmp_path / "none")
