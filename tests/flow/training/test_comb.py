"""The comb as a term of the loss: what it measures, and that training takes it away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glowd.flow.evaluation.metrics import comb_levels_db
from glowd.flow.training.comb import comb_difference, comb_levels
from glowd.flow.training.objective import Latents, Objective, invertible
from glowd.flow.training.settings import TrainError
from tests.harness.training import small_settings, start

pytestmark = pytest.mark.usefixtures("one_thread")
GROUP = 64
DB = 20 / np.log(10)


def noise(seed: int, batch: int = 4) -> Tensor:
    """White noise [B, 32768]."""
    return 0.1 * torch.randn(batch, 32768, generator=torch.Generator().manual_seed(seed))


def pattern(level: float) -> Tensor:
    """The same 64 samples in every group [32768]: an impulse, which is a tone at every multiple."""
    return level * torch.eye(GROUP)[0].repeat(32768 // GROUP)


def test_levels_are_those_of_the_evaluation() -> None:
    audio = noise(0, batch=1) + pattern(0.3)
    expected = comb_levels_db(audio[0].numpy(), GROUP)
    found = DB * comb_levels(audio, GROUP).numpy()
    assert expected.mean() > 5 and np.abs(found - expected).mean() < 1.5
    assert found.mean() == pytest.approx(expected.mean(), abs=0.5)


def test_noise_has_no_comb_at_any_level() -> None:
    for level in (1.0, 0.1):
        assert comb_levels(level * noise(0, batch=16), GROUP).abs().mean() < 0.15


def test_difference_counts_what_speech_has_not() -> None:
    speech, ticking = noise(0), noise(0) + pattern(0.3)
    assert comb_difference(speech, noise(1), GROUP) < 0.05
    assert comb_difference(speech, ticking, GROUP) > 0.3
    assert comb_difference(ticking, noise(1) + pattern(0.3), GROUP) < 0.05, "the speech itself has it"


def test_gradient_takes_the_pattern_away() -> None:
    share = torch.ones((), requires_grad=True)
    comb_difference(noise(0), noise(1) + share * pattern(0.3), GROUP).backward()
    assert share.grad is not None and share.grad > 0.1


def test_gradient_of_silence_is_finite() -> None:
    silence = torch.zeros(1, 32768, requires_grad=True)
    comb_difference(noise(0, batch=1), silence, GROUP).backward()
    assert silence.grad is not None and silence.grad.isfinite().all()


def test_comb_enters_the_loss_by_its_weight(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = small_settings(tmp_path_factory, spectral_weight=0.5, segment_samples=4096)
    trainer, _ = start(settings, tmp_path / "run")
    batch = trainer.segments.next()
    latent = Latents(trainer.voice, settings, torch.device("cpu"), 3).next(len(batch.audio))
    without, weighted = (
        Objective(trainer.voice, replace(settings, comb_weight=w))(batch, latent, False)[0] for w in (0.0, 3.0)
    )
    voice = invertible(trainer.voice, settings)
    samples = voice.inverse(latent.z, batch.mel.repeat(2, 1, 1))
    expected = 0.5 * 3 * comb_difference(batch.audio, samples, voice.config.group).item()
    assert (weighted - without).item() == pytest.approx(expected, rel=1e-3)
    with pytest.raises(
        TrainError, match="segment_samples is 2048; allowed with spectral_weight and comb_weight: more than 2048"
    ):
        Objective(trainer.voice, replace(settings, comb_weight=1.0, segment_samples=2048))
    assert "comb" in replace(settings, comb_weight=1.0).objective
