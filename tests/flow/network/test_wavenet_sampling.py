"""Sampling from a WaveNet: a cached step computes and draws from the distribution of the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from glowd.flow import checkpoint
from glowd.flow.cli import main
from glowd.flow.latents import NoiseTable
from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.network.wavenet import WaveNet
from glowd.flow.network.wavenet_sampling import Sampler, sample
from tests.harness.recordings import voice_like
from tests.harness.wavenets import KINDS, small, speech


@pytest.mark.parametrize("changes", [*KINDS, {"mel": MelFormat(centre=False)}])
def test_cached_step_equals_the_network(changes: dict[str, Any]) -> None:
    network = small(**changes)
    audio = torch.cat([speech(seed=seed)[0] for seed in (1, 2, 3)])
    mel = torch.cat([speech(seed=seed)[1] for seed in (1, 2, 3)])
    with torch.no_grad():
        mean, log_scale = network(audio, mel)
    sampler = Sampler(network, mel)
    parts = []
    for begin, end in ((0, 1), (1, 8), (8, 9), (9, 25)):
        parts.append(sampler.advance(end - begin, forced=audio[:, begin * 256 : end * 256].numpy()))
    samples, means, scales = (np.concatenate(part, 1) for part in zip(*parts))
    assert samples.shape == (3, 25 * 256) and np.array_equal(samples, audio.numpy())
    assert np.abs(means - mean.numpy()).max() < 1e-5 and np.abs(np.log(scales) - log_scale.numpy()).max() < 1e-4
    z = (samples - means) / scales
    assert (0.5 * z**2 + np.log(scales)).mean() == pytest.approx(network.nll(audio, mel).item(), abs=1e-4)


def test_drawn_samples_are_gaussian_of_seed_and_time() -> None:
    network, (_, mel) = small(group=4), speech()
    noise = NoiseTable(4)
    row = torch.tensor([noise.first_row(7)])
    samples, mean, scale = Sampler(network, mel, seed=7).advance(25, temperature=0.5)
    z = 0.5 * noise.rows(row, 25 * 64).flatten().numpy()
    assert np.allclose(samples[0], mean[0] + scale[0] * z, atol=1e-6) and np.abs(samples).max() < 1
    with torch.no_grad():
        again = network(torch.from_numpy(samples), mel)
    assert np.abs(again[0].numpy() - mean).max() < 1e-5


def test_sampling_repeats_and_takes_any_lengths() -> None:
    network = small()
    mels = [speech(seconds, seed)[1][0].T.numpy() for seconds, seed in ((0.2, 1), (1.0, 2), (0.5, 3))]
    first, same = sample(network, mels, seed=3), sample(network, mels, seed=3)
    assert [len(a) for a in first] == [256 * len(mel) for mel in mels] and sample(network, []) == []
    assert all(np.array_equal(a, b) for a, b in zip(first, same))
    assert not np.allclose(first[0], sample(network, mels, seed=4)[0], atol=1e-3)
    for mel, together in zip(mels, first):
        alone = sample(network, [mel], seed=3)[0]
        assert np.abs(alone - together)[:2048].max() < 1e-4
    still = sample(network, mels[:1], temperature=0.0)[0]
    assert np.array_equal(still, sample(network, mels[:1], seed=9, temperature=0.0)[0])
    with pytest.raises(ValueError, match=r"temperature is -1; allowed: 0 to 2.0"):
        sample(network, mels, temperature=-1)
    with pytest.raises(ValueError, match=r"mel must have shape \[L, 80\]; got \[80, 5\]"):
        sample(network, [np.zeros((80, 5), np.float32)])


def test_glowlab_renders_a_wavenet_and_shows_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network, path = small(), tmp_path / "w.safetensors"
    checkpoint.save(path, network.config, network.state_dict(), {"name": "w"})
    wave = voice_like(0.5, 3)
    soundfile.write(tmp_path / "in.wav", wave, 22050, subtype="FLOAT")
    argv = ["--checkpoint", str(path), "--seed", "5", "--sigma", "0.5"]
    assert main(["render", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), *argv]) == 0
    mel = log_mel(wave)[: len(wave) // 256]
    expected = sample(checkpoint_network(path), [mel], 5, 0.5)[0]
    assert np.abs(soundfile.read(tmp_path / "out.wav", dtype="float32")[0] - expected.clip(-1, 1)).max() < 1e-4
    assert main(["card", str(path)]) == 0
    assert "skip_channels        16" in capsys.readouterr().out
    assert main(["context", str(path), str(tmp_path / "in.wav")]) == 2
    assert "holds a wavenet" in capsys.readouterr().err


def checkpoint_network(path: Path) -> WaveNet:
    """The WaveNet of a checkpoint."""
    network = checkpoint.load_any(path)
    assert isinstance(network, WaveNet)
    return network
