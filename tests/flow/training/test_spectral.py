"""The spectral stage: the published distance, samples that move towards speech, and a complete state."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glowd.flow import checkpoint
from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.options import OptionError
from glowd.flow.training.data import Batch
from glowd.flow.training.objective import Latents, Objective, invertible
from glowd.flow.training.run_folder import CURVE, VOICE
from glowd.flow.training.settings import Settings, TrainError
from glowd.flow.training.setup import resumed_run
from glowd.flow.training.spectral import (
    FLOOR,
    LIMIT,
    MAGNITUDE_WEIGHT,
    WINDOWS,
    distance,
    energy_distance,
    mel_error,
    phase_agreement,
    spectrograms,
)
from glowd.flow.training.train import train
from tests.harness.training import silent, small_settings, spectral, start
from tests.harness.voices import random_voice, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run of 4 steps with both terms of the loss and a point of the curve every 2."""
    return small_settings(tmp_path_factory, spectral_weight=0.5)


def noise(seed: int, scale: float = 0.1, batch: int = 4) -> Tensor:
    """White noise [B, 4096]."""
    return scale * torch.randn(batch, 4096, generator=torch.Generator().manual_seed(seed))


def test_distance_equals_its_definition() -> None:
    a, b = noise(0), noise(1, 0.02)
    expected = 0.0
    for size in WINDOWS:
        stft = partial(librosa.stft, n_fft=size, hop_length=size // 4, pad_mode="reflect")
        first, second = (np.abs(stft(x.numpy())) / np.sqrt(size) for x in (a, b))  # [B, bins, frames]
        log_rms = np.sqrt(np.mean((np.log(first + FLOOR) - np.log(second + FLOOR)) ** 2, 1)).mean()
        expected += (log_rms + MAGNITUDE_WEIGHT * np.abs(first - second).mean()) / len(WINDOWS)
    found = distance(spectrograms(a), spectrograms(b))
    assert found.item() == pytest.approx(expected, rel=1e-3)
    assert distance(spectrograms(b), spectrograms(a)).item() == pytest.approx(found.item(), rel=1e-6)
    assert distance(spectrograms(a), spectrograms(a)).item() < 2e-3


def test_mel_error_equals_that_of_the_front_end() -> None:
    audio = noise(3, batch=2)
    asked = torch.stack([torch.from_numpy(log_mel(x.numpy()).T.copy()) for x in noise(4, batch=2)])[:, :, :16]
    found = torch.stack([torch.from_numpy(log_mel(x.numpy()).T.copy()) for x in audio])[:, :, :16]
    # Frames 2 to 14: the windows of 1024 samples that lie inside 4096.
    expected = (found - asked)[:, :, 2:15].abs().mean()
    assert mel_error(audio, asked, MelFormat()).item() == pytest.approx(expected.item(), rel=1e-4)
    assert mel_error(audio, found, MelFormat()).item() < 1e-4


def test_mel_error_enters_the_loss_by_its_weight(settings: Settings, tmp_path: Path) -> None:
    trainer, _ = start(settings, tmp_path)
    batch = trainer.segments.next()
    latent = Latents(trainer.voice, settings, torch.device("cpu"), 3).next(len(batch.audio))
    without, weighted = (
        Objective(trainer.voice, replace(settings, mel_weight=w))(batch, latent, False)[0] for w in (0.0, 3.0)
    )
    mel = batch.mel.repeat(2, 1, 1)
    error = mel_error(invertible(trainer.voice, settings).inverse(latent.z, mel), mel, trainer.config.mel)
    assert (weighted - without).item() == pytest.approx(settings.spectral_weight * 3 * error.item(), rel=1e-4)


def test_energy_distance_is_attraction_less_repulsion() -> None:
    x, y1, y2 = noise(0), noise(1), noise(2)
    a, b, c = map(spectrograms, (x, y1, y2))
    whole = distance(a, b) + distance(a, c) - distance(b, c)
    assert energy_distance(x, [y1, y2]).item() == pytest.approx(whole.item(), rel=1e-5)
    assert energy_distance(x, [y1]).item() == pytest.approx(distance(a, b).item(), rel=1e-5)
    assert energy_distance(x, [1e6 * y1]).item() == energy_distance(x, [(1e6 * y1).clamp(-LIMIT, LIMIT)]).item()


def test_energy_distance_is_least_at_the_right_spread() -> None:
    # Speech is noise of 0.1 here: samples of that size win over quieter, louder, and over two that are the same.
    scores = {s: energy_distance(noise(0), [noise(1, s), noise(2, s)]).item() for s in (0.05, 0.1, 0.2)}
    assert min(scores, key=lambda s: scores[s]) == 0.1
    assert energy_distance(noise(0), [noise(1), noise(1)]).item() > 1.3 * scores[0.1]


def test_phase_agreement_grows_with_the_shared_part() -> None:
    shared, one, other = noise(0), noise(1), noise(2)
    found = [
        phase_agreement(spectrograms(a * shared + one), spectrograms(a * shared + other)).item() for a in (0, 0.5, 1, 4)
    ]
    assert abs(found[0]) < 0.02 and found == sorted(found) and found[3] > 0.8
    assert phase_agreement(spectrograms(one), spectrograms(3 * one)).item() == pytest.approx(1, abs=0.02)
    assert phase_agreement(spectrograms(one), spectrograms(-one)).item() == pytest.approx(-1, abs=0.02)


def test_phase_agreement_is_weighted_and_differentiable() -> None:
    x, one, other = noise(0), noise(1), noise(2)
    share = torch.ones((), requires_grad=True)
    samples = [share * x + one, share * x + other]
    weighted = energy_distance(x, samples, phase_weight=2.0) - energy_distance(x, samples)
    agreement = phase_agreement(*map(spectrograms, samples))
    assert weighted.item() == pytest.approx(2 * agreement.item(), abs=1e-5)
    agreement.backward()
    assert share.grad is not None and share.grad.item() > 0.1, "less of what is shared agrees less"


def test_phase_weight_needs_two_samples(settings: Settings) -> None:
    with pytest.raises(OptionError, match=r"phase_weight must be 0 where spectral_samples is 1; got 0\.5"):
        replace(settings, phase_weight=0.5, spectral_samples=1)
    assert "phase agreement" in replace(settings, phase_weight=0.5).objective


def test_gradient_of_silence_is_finite() -> None:
    silence = torch.zeros(1, 4096, requires_grad=True)
    energy_distance(noise(0, batch=1), [silence, silence], phase_weight=1.0).backward()
    assert silence.grad is not None and silence.grad.isfinite().all()


@pytest.mark.parametrize("squeeze", ["lapped", "polyphase"])
@pytest.mark.parametrize("samples", [1, 2])
def test_loss_is_the_weighted_sum(settings: Settings, samples: int, squeeze: str) -> None:
    settings = replace(settings, spectral_samples=samples, nll_weight=2.0, spectral_weight=0.25, spectral_sigma=0.5)
    voice = random_voice(tiny(squeeze=squeeze))
    audio, mel = noise(0)[:, :2048], torch.full((4, 80, 8), -4.0)
    latent = Latents(voice, settings, audio.device, 0).next(4)
    z = latent.z
    assert len(z) == 4 * samples and z.std().item() == pytest.approx(0.5, rel=0.05)
    loss, nll = Objective(voice, settings)(Batch(audio, mel), latent, False)
    drawn = [voice.inverse(part, mel) for part in z.split(4)]
    assert nll.item() == pytest.approx(voice.nll(audio, mel).item(), rel=1e-6)
    assert loss.item() == pytest.approx(2 * nll.item() + 0.25 * energy_distance(audio, drawn).item(), rel=1e-5)


def test_zero_spectral_weight_draws_no_samples(settings: Settings, tmp_path: Path) -> None:
    trainer, _ = start(replace(settings, spectral_weight=0.0), tmp_path)
    trainer.step()
    assert spectral(trainer) is None and trainer.validate_and_record().spectral is None
    assert trainer.state_dict()["latents"] is None


@pytest.mark.parametrize("samples", [1, 2])
def test_samples_move_towards_speech(settings: Settings, tmp_path: Path, samples: int) -> None:
    trainer, _ = start(replace(settings, spectral_samples=samples, steps=40, spectral_weight=2.0), tmp_path)
    before = spectral(trainer)
    for _ in range(30):
        trainer.step()
    after = spectral(trainer)
    assert before is not None and after is not None and after < 0.8 * before
    assert after == spectral(trainer)


def test_run_reports_its_spectral_distance(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(settings, tmp_path)
    lines: list[str] = []
    assert train(trainer, folder, lines.append)
    with (tmp_path / CURVE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["spectral"]) for row in rows] == [point.spectral for point in trainer.curve.points]
    assert f"spectral {trainer.curve.points[-1].spectral:.4f} lr" in lines[-1]
    card = checkpoint.read_header(tmp_path / VOICE)[1]
    assert card["training"]["objective"] == "likelihood + spectral energy distance"
    named = ("nll_weight", "spectral_weight", "spectral_samples", "spectral_sigma")
    assert [card["training"][key] for key in named] == [1.0, 0.5, 2, 0.8] and len(card["curve"][-1]) == 6


def test_likelihood_run_resumes_with_a_spectral_term(settings: Settings, tmp_path: Path) -> None:
    trainer, folder = start(replace(settings, spectral_weight=0.0), tmp_path)
    assert train(trainer, folder, silent)
    state = folder.load()
    del state["latents"]  # as in the files of runs before there was such a part
    state["curve"] = [point[:5] for point in state["curve"]]
    folder.save(state)
    resumed = resumed_run(folder, {"steps": 6, "spectral_weight": 1.0}, silent)
    assert train(resumed, folder, silent)
    assert [point.spectral is None for point in resumed.curve.points] == [True, True, False]


def test_compiled_loss_is_the_same(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dict(flows=2, early_every=1, layers=1)
    # Traced and differentiated by the compiler, but not made into machine code, which takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    trainers = [start(replace(settings, compile=on), tmp_path / str(on), **few)[0] for on in (False, True)]
    for trainer in trainers:
        trainer.step()
    plain, compiled = ([p.detach() for p in trainer.voice.parameters()] for trainer in trainers)
    assert trainers[0].curve.losses == pytest.approx(trainers[1].curve.losses, rel=1e-5)
    assert max((a - b).abs().max().item() for a, b in zip(plain, compiled)) < 1e-4


class Blind(nn.Module):
    """A network that has a likelihood and no inverse."""

    def nll(self, audio: Tensor, mel: Tensor, autocast: bool = False) -> Tensor:
        return audio.mean()


def test_network_without_inverse_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(
        TrainError, match=r"spectral_weight is 0\.5, which needs samples in one pass; a Blind gives none; allowed: 0"
    ):
        Objective(Blind(), settings)  # type: ignore[arg-type]
    likelihood = Objective(Blind(), replace(settings, spectral_weight=0.0))  # type: ignore[arg-type]
    loss, nll = likelihood(Batch(noise(0), noise(0)), None, False)
    assert loss.item() == nll.item()
    with pytest.raises(TrainError, match=r"segment_samples is 1024; allowed with spectral_weight: more than 1024"):
        start(replace(settings, segment_samples=1024), tmp_path)
