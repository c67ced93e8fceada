"""The phase of a recording's fundamental: found though the pitch is a little off, and what a voice with a source trains on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glowd.flow import checkpoint
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.training.card import voice_card
from glowd.flow.training.data import Segments, load_clips
from glowd.flow.training.locked_phase import lock, locked_phase
from glowd.flow.training.objective import Latents, likelihood
from glowd.flow.training.pitch_file import PitchFile, read_pitch
from glowd.flow.training.run_folder import VOICE, RunFolder
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.setup import new_run, resumed_run
from glowd.flow.training.train import train
from glowd.flow.training.trainer import Trainer
from tests.harness.recordings import write_recordings
from tests.harness.training import nll, silent, small_settings
from tests.harness.voices import PLAIN, random_voice, sourced, tiny

pytestmark = pytest.mark.usefixtures("one_thread")
RATE_HZ = 22050


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run of both stages in one: 4 steps, samples among the loss."""
    return small_settings(tmp_path_factory, spectral_weight=0.5, mel_weight=1.0)


def vowel(cycles: NDArray[np.float64], seed: int = 0) -> Floats:
    """Ten harmonics at a phase in cycles [T], and a little noise."""
    noise = np.random.default_rng(seed).standard_normal(len(cycles))
    tones = sum(np.cos(2 * np.pi * k * cycles) / k for k in range(1, 11))
    return (0.2 * tones + 0.01 * noise).astype(np.float32)


# --------------------------------------------------------------------- phase


def test_phase_is_found_by_a_pitch_that_is_off() -> None:
    t = np.arange(RATE_HZ) / RATE_HZ
    f0_hz = 150 + 20 * np.sin(2 * np.pi * t)
    cycles = 0.3 + f0_hz.cumsum() / RATE_HZ
    off = f0_hz * 2 ** (15 / 1200)  # 15 cents
    found = locked_phase(vowel(cycles), off, np.ones_like(off), RATE_HZ)
    error = np.angle(np.exp(2j * np.pi * (found - cycles)))[2000:-2000] / (2 * np.pi)
    assert np.abs(error).max() < 0.03
    drift = np.angle(np.exp(2j * np.pi * (off.cumsum() / RATE_HZ - cycles)))[2000:-2000] / (2 * np.pi)
    assert np.abs(drift).max() > 0.4, "the carrier alone does not do"


def test_phase_without_a_voice_is_the_carrier() -> None:
    f0_hz = np.full(4000, 100.0)
    found = locked_phase(np.zeros(4000, np.float32), f0_hz, np.zeros(4000), RATE_HZ)
    np.testing.assert_allclose(found, 100.0 * np.arange(1, 4001) / RATE_HZ)


def test_segments_bring_the_phase_of_their_samples(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data"), MelFormat(), 2048)
    lock(clips, random_voice(sourced()))
    assert clips.phase is not None and clips.phase.shape == clips.audio.shape
    audio, _, phase = Segments(clips, 3, seed=0, colour=0.5).next()
    plain = Segments(clips, 3, seed=0).next()
    assert phase is not None and phase.shape == audio.shape and phase.dtype == torch.float32
    assert plain.phase is not None and torch.equal(phase, plain.phase)
    places = clips.phase.float().unfold(0, 2048, 256)
    assert all((places == segment).all(1).any() for segment in phase)


# ------------------------------------------------------------------ training


def parent(folder: Path) -> str:
    """A small voice with a source, as a file."""
    voice, path = random_voice(sourced()), folder / "parent.safetensors"
    checkpoint.save(path, voice.config, voice.state_dict())
    return str(path)


def begin(settings: Settings, folder: Path) -> tuple[Trainer, RunFolder]:
    out = RunFolder(folder / "out")
    folder.mkdir(exist_ok=True)
    return new_run(out, settings, {}, parent(folder), silent), out


def test_voice_with_a_source_learns(settings: Settings, tmp_path: Path) -> None:
    trainer, _ = begin(replace(settings, spectral_weight=0.0, steps=40), tmp_path)
    assert isinstance(trainer.voice, WaveGlow) and trainer.voice.pitch is not None
    pitch = [p.clone() for p in trainer.voice.pitch.parameters()]
    before = nll(trainer)
    for _ in range(25):
        trainer.step()
    assert nll(trainer) < before - 0.5
    assert all(torch.equal(a, b) for a, b in zip(pitch, trainer.voice.pitch.parameters())), "the pitch stays"


def test_likelihood_depends_on_the_phase(settings: Settings, tmp_path: Path) -> None:
    trainer, _ = begin(settings, tmp_path)
    batch = trainer.segments.next()
    assert batch.phase is not None
    voice = trainer.voice
    here, turned = (likelihood(voice.nll, voice, batch._replace(phase=batch.phase + d), False) for d in (0, 0.4))
    assert here != turned
    whole = likelihood(voice.nll, voice, batch._replace(phase=batch.phase + 1), False)
    assert whole.item() == pytest.approx(here.item(), abs=1e-4)


def test_samples_begin_at_random_phases(settings: Settings) -> None:
    one, other = (Latents(random_voice(sourced()), settings, torch.device("cpu"), 0) for _ in range(2))
    first = one.next(4).offset
    assert first is not None and len(first.unique()) == 8 and first.min() >= 0 and first.max() < 1
    other.load_state_dict(one.state_dict())
    again, expected = other.next(4), one.next(4)
    assert torch.equal(again.z, expected.z) and again.offset is not None and expected.offset is not None
    assert torch.equal(again.offset, expected.offset)
    assert Latents(random_voice(tiny()), settings, torch.device("cpu"), 0).next(4).offset is None


def test_run_with_a_source_resumes_exactly(settings: Settings, tmp_path: Path) -> None:
    straight, folder = begin(settings, tmp_path / "straight")
    assert train(straight, folder, silent)
    stopped, folder = begin(settings, tmp_path / "stopped")
    for _ in range(2):
        stopped.step()
    folder.prepare()
    folder.save(stopped.state_dict())
    resumed = resumed_run(folder, {}, silent)
    assert resumed.clips.phase is not None and resumed.steps == 2
    assert train(resumed, folder, silent)
    for a, b in zip(straight.ema.network.parameters(), resumed.ema.network.parameters()):
        assert torch.equal(a, b)
    last = straight.curve.points[-1], resumed.curve.points[-1]
    assert last[0].validation == last[1].validation and last[0].spectral == last[1].spectral
    config, _ = checkpoint.read_header(tmp_path / "stopped" / "out" / VOICE)
    assert config == sourced()


# ---------------------------------------------------------------- pitch files


def pitch_file() -> PitchFile:
    """A pitch network of another geometry than that of `parent`."""
    voice = random_voice(sourced(), seed=3)
    config = voice.config
    assert voice.pitch is not None and config.source is not None
    return PitchFile(
        config.source.pitch,
        config.mel,
        config.mel_mean,
        config.mel_std,
        voice.pitch.state_dict(),
        {"median_cents": 9.0},
    )


def test_pitch_file_goes_into_a_new_voice(settings: Settings, tmp_path: Path) -> None:
    file = pitch_file()
    file.save(tmp_path / "pitch.safetensors")
    pitch = str(tmp_path / "pitch.safetensors")
    small = {key: value for key, value in PLAIN.items() if key != "preset"}
    new = new_run(RunFolder(tmp_path / "new"), settings, small, "", silent, pitch=pitch)
    again = new_run(RunFolder(tmp_path / "again"), settings, {}, parent(tmp_path), silent, pitch=pitch)
    for trainer in (new, again):
        for network in (trainer.voice, trainer.ema.network):
            assert isinstance(network, WaveGlow) and network.pitch is not None and network.config.source is not None
            assert network.config.source.pitch == file.config
            found = network.pitch.state_dict()
            assert all(torch.equal(found[key], value) for key, value in file.weights.items())
        assert voice_card(trainer)["origin"]["pitch"] == {"median_cents": 9.0}
    first = checkpoint.load(tmp_path / "parent.safetensors")
    assert torch.equal(again.voice.state_dict()["encoder.context.weight"], first.state_dict()["encoder.context.weight"])


def test_wrong_pitch_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "pitch.safetensors"
    with pytest.raises(TrainError, match=r"pitch\.safetensors cannot be read.*glowlab pitch writes one"):
        read_pitch(path)
    with pytest.raises(TrainError, match="holds no pitch network"):
        read_pitch(Path(parent(tmp_path)))
    pitch_file().save(path)
    with pytest.raises(TrainError, match="--pitch is for a voice with a source"):
        new_run(RunFolder(tmp_path / "out"), settings, PLAIN, "", silent, pitch=str(path))
    with pytest.raises(TrainError, match="train one on the voice's mels"):
        replace(pitch_file(), mel_mean=0.0).inside(sourced())
