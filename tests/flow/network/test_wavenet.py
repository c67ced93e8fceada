"""WaveNet: an exact likelihood over samples, and sampling from the distributions it was trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from glowd.daemon.config_voices import WaveGlowSettings
from glowd.daemon.doctor import check_checkpoint as finding
from glowd.flow import checkpoint
from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.network.linear_prediction import Predictor, levinson
from glowd.flow.network.registry import config_from_dict
from glowd.flow.network.wavenet import WaveNet, WaveNetConfig
from glowd.flow.training.data import load_clips
from glowd.flow.training.geometry import geometry
from glowd.flow.training.run_folder import VOICE, RunFolder
from glowd.flow.training.samples import sample_sentences
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.setup import new_run, resumed_run
from glowd.flow.training.train import train
from glowd.flow.training.trainer import optimisers
from tests.harness.recordings import voice_like
from tests.harness.training import nll, silent, small_settings
from tests.harness.voices import random_voice, tiny
from tests.harness.wavenets import KINDS, SMALL, small, speech


def test_levinson_solves_the_normal_equations() -> None:
    lags = np.correlate(voice := voice_like(0.1, 1), voice, "full")[len(voice) - 1 :][:13].astype(np.float64)
    lags[0] *= 1.01
    taps, error = levinson(torch.from_numpy(np.stack([lags, 4 * lags])))
    expected = scipy.linalg.solve_toeplitz(lags[:-1], lags[1:])
    assert np.allclose(taps[0], expected) and torch.allclose(taps[0], taps[1])
    assert error.tolist() == pytest.approx([lags[0] - expected @ lags[1:], 4 * (lags[0] - expected @ lags[1:])])


def test_predictor_of_a_mel_whitens_a_resonance() -> None:
    """Noise through a resonator: its mel alone gives a predictor that whitens it, and the size of what is left."""
    import scipy.signal

    poles = 0.97 * np.exp(2j * np.pi * 1500 / 22050 * np.array([1, -1]))
    noise = 0.01 * np.random.default_rng(0).standard_normal(22016)
    audio = scipy.signal.lfilter([1.0], np.poly(poles).real, noise).astype(np.float32)
    prediction = Predictor(MelFormat(), 24, 4)(torch.from_numpy(log_mel(audio)[:86].T.copy())[None])
    assert prediction.taps.shape == (1, 344, 24) and prediction.gain.shape == (1, 344)
    error = scipy.signal.lfilter(np.r_[1, -prediction.taps[0].mean(0).numpy()], [1.0], audio)
    assert prediction.level.mean().item() == pytest.approx(audio.std(), rel=0.15)
    assert prediction.gain.mean().item() == pytest.approx(0.01, rel=0.3)
    assert error.std() == pytest.approx(0.01, rel=0.1) and audio.std() > 0.05


@pytest.mark.parametrize("centre", [True, False])
def test_slices_lie_between_the_centres_of_frames(centre: bool) -> None:
    format = MelFormat(centre=centre)
    centres = torch.arange(6.0) + format.centre_samples / format.hop
    found = Predictor(format, 24, 4)._between(centres[None, None])[0, 0]
    slices = (torch.arange(24) + 0.5) / 4
    torch.testing.assert_close(found, slices.clamp(float(centres[0]), float(centres[-1])))


@pytest.mark.parametrize("changes", KINDS)
def test_sample_depends_on_past_and_one_frame_ahead(changes: dict[str, Any]) -> None:
    network = small(**changes)
    audio, mel = speech()
    t, frame = 1003, 12
    later, other = audio.clone(), mel.clone()
    later[:, t] += 0.1
    other[:, :, frame:] += 1.0
    with torch.no_grad():
        before, moved, heard = network(audio, mel), network(later, mel), network(audio, other)
    for a, b, c in zip(before, moved, heard):
        assert torch.allclose(a[:, : t + 1], b[:, : t + 1], atol=1e-6)
        assert torch.allclose(a[:, : (frame - 1) * 256], c[:, : (frame - 1) * 256], atol=1e-6)
        assert not torch.allclose(
            a[:, (frame - 1) * 256 : frame * 256], c[:, (frame - 1) * 256 : frame * 256], atol=1e-4
        )
    assert (before[0] - moved[0])[0, t + 1 : t + 20].abs().max() > 1e-3
    reach = t + network.config.reach_samples + network.config.group
    assert torch.allclose(before[0][:, reach:], moved[0][:, reach:], atol=1e-6) and reach < audio.shape[1] - 256


@pytest.mark.parametrize("changes", KINDS)
def test_likelihood_is_a_density(changes: dict[str, Any]) -> None:
    """z = (x - mean) / scale is a change of variables whose log-determinant is what `nll` uses."""
    network = small(**changes)
    audio, mel = speech()
    audio, mel = audio[:, 1024:1536], mel[:, :, 4:6]

    def latent(x: torch.Tensor) -> torch.Tensor:
        mean, log_scale = network(x, mel)
        return ((x - mean) / log_scale.exp())[0]

    jacobian = torch.autograd.functional.jacobian(latent, audio)[:, 0].double()
    log_det = torch.linalg.slogdet(jacobian)[1].item()
    z = latent(audio).double()
    assert jacobian.triu(1).abs().max() < 1e-3
    assert network.nll(audio, mel).item() == pytest.approx((0.5 * z.square().sum().item() - log_det) / 512, abs=1e-4)


def test_wrong_geometry_names_the_setting() -> None:
    with pytest.raises(ValueError, match="group must be a divisor of the slice, 64; got 3"):
        WaveNetConfig(group=3)
    with pytest.raises(ValueError, match="slices_per_frame must be a divisor of the hop, 256; got 3"):
        WaveNetConfig(slices_per_frame=3)
    with pytest.raises(ValueError, match="temperature must be a number, from 0 to 2; got 3"):
        WaveNetConfig(temperature=3)
    with pytest.raises(ValueError, match="unknown setting flows"):
        WaveNetConfig.from_dict({"flows": 3})
    with pytest.raises(ValueError, match="unknown kind of network 'vocos'; known: waveglow, wavenet"):
        config_from_dict("vocos", {})
    with pytest.raises(TrainError, match="known: streaming, plain, stock, wavenet"):
        geometry({"preset": "other"})
    assert geometry({"preset": "wavenet", "group": 1}) == WaveNetConfig(group=1)


def test_checkpoint_of_a_wavenet_has_its_kind(tmp_path: Path) -> None:
    network, path = small(), tmp_path / "wavenet.safetensors"
    checkpoint.save(path, network.config, network.state_dict(), {"name": "w"})
    loaded = checkpoint.load_any(path)
    assert loaded.config == network.config and checkpoint.read_any_header(path) == (network.config, {"name": "w"})
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values()))
    refused = "holds a wavenet; the daemon serves waveglow voices only; render it with glowlab render"
    for read in (checkpoint.load, checkpoint.read_header):
        with pytest.raises(checkpoint.CheckpointError, match=refused):
            read(path)
    told = finding("w", WaveGlowSettings(checkpoint=str(path)))
    assert told.state == "missing" and refused in told.text


def test_checkpoint_without_a_kind_is_a_waveglow(tmp_path: Path) -> None:
    voice, path = random_voice(tiny()), tmp_path / "old.safetensors"
    checkpoint.save(path, voice.config, voice.state_dict())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    assert metadata.pop("kind") == "waveglow"
    save_file(tensors, path, metadata)
    assert checkpoint.load(path).config == voice.config
    save_file(tensors, path, metadata | {"kind": "vocos"})
    with pytest.raises(checkpoint.CheckpointError, match="broken header: unknown kind of network 'vocos'"):
        checkpoint.load(path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run of 40 steps, the curve every 20."""
    return small_settings(
        tmp_path_factory, steps=40, every=20, batch=2, warm_up_steps=5, threads=1, precision="float32"
    )


def test_training_improves_and_resumes_exactly(settings: Settings, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    trainer = new_run(folder, settings, {"preset": "wavenet"} | SMALL, "", silent)
    assert isinstance(trainer.voice, WaveNet)
    before = nll(trainer)
    assert train(trainer, folder, silent)
    assert trainer.curve.points[-1].validation < before - 0.1 and trainer.curve.points[0].step == 20
    config, card = checkpoint.read_any_header(folder.path / VOICE)
    assert config == WaveNetConfig(**SMALL) and card["nll_nats_per_sample"] == round(
        trainer.curve.points[-1].validation, 4
    )
    resumed = resumed_run(RunFolder(folder.path), {}, silent)
    assert resumed.config == config and resumed.steps == 40
    trainer.step()
    resumed.step()
    assert trainer.curve.losses[-1] == resumed.curve.losses[-1]
    child = new_run(RunFolder(tmp_path / "child"), settings, {}, str(folder.path / VOICE), silent)
    assert child.config == config and nll(child) == pytest.approx(resumed.curve.points[-1].validation, abs=1e-2)


def test_training_renders_sentences_but_no_spectral_loss(settings: Settings, tmp_path: Path) -> None:
    table = {"preset": "wavenet"} | SMALL
    trainer = new_run(RunFolder(tmp_path / "out"), settings, table, "", silent)
    spoken = sample_sentences(trainer.ema.network, trainer.validation.clips)
    assert [len(samples) for samples in spoken.values()] == [
        trainer.validation.clips.whole(i)[1].shape[1] * 256 for i in range(len(spoken))
    ]
    assert spoken and all(np.isfinite(samples).all() and samples.std() > 0 for samples in spoken.values())
    with pytest.raises(
        TrainError, match=r"spectral_weight is 1, which needs samples in one pass; a WaveNet gives none"
    ):
        new_run(RunFolder(tmp_path / "no"), replace(settings, spectral_weight=1.0), table, "", silent)


def test_bf16_likelihood_is_near_float32(settings: Settings) -> None:
    clips = load_clips(Path(settings.data), MelFormat(), 2048)
    audio, mel, _ = clips.draw(4, torch.Generator().manual_seed(0))
    network = small()
    assert network.nll(audio, mel, True).item() == pytest.approx(network.nll(audio, mel).item(), abs=0.05)


def test_muon_gets_all_convolutions_but_the_last() -> None:
    network = small()
    names = {id(p): name for name, p in network.named_parameters()}
    (adamw, _), (muon, _) = optimisers(network, 1e-3)
    of_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    of_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert {"start.weight", "stack.0.conv.weight", "mix.weight"} <= of_muon and "end.weight" in of_adamw
    assert of_muon | of_adamw == set(names.values()) and not of_muon & of_adamw
