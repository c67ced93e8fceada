"""The network: invertible with the log-determinant it claims, for every kind of voice, and equal to what it was."""

from itertools import product
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from glowd.flow.checkpoint import load
from glowd.flow.network.conditioning import FrameEncoder, Upsampler
from glowd.flow.network.coupling import WN, Coupling, Mixing
from glowd.flow.network.harmonic import HarmonicLayer
from glowd.flow.network.squeeze import LappedSqueeze, PolyphaseSqueeze
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from tests.harness.voices import DATA, SMALL, random_voice, sourced, tiny

KINDS = list(product(("lapped", "polyphase"), (True, False), ("frames", "upsample"), (True, False)))


def assert_invertible(layer: Any, x: Tensor, *condition: Tensor) -> None:
    """One test for every layer: inverse undoes forward, and the log-determinant is the Jacobian's."""
    y, log_det = layer(x, *condition)
    assert torch.allclose(layer.inverse(y, *condition), x, atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v, *condition)[0], x)
    size = x[0].numel()
    for b in range(x.shape[0]):
        matrix = jacobian[b, :, :, b].reshape(size, size)
        assert torch.allclose(torch.linalg.slogdet(matrix)[1], log_det[b], atol=1e-3)


def test_mixing() -> None:
    torch.manual_seed(0)
    layer = Mixing(6)
    with torch.no_grad():
        layer.weight.mul_(1.3).add_(0.1 * torch.randn(6, 6))
    assert_invertible(layer, torch.randn(2, 6, 3))


@pytest.mark.parametrize("causal", [True, False])
def test_coupling(causal: bool) -> None:
    torch.manual_seed(0)
    layer = Coupling(WN(3, 3, 8, 5, 2, 3, causal))
    torch.nn.init.normal_(layer.wn.end.weight, std=0.1)
    assert_invertible(layer, torch.randn(2, 6, 7), torch.randn(2, 5, 7), torch.zeros(2, 0, 7))


def test_a_bounded_coupling_with_a_source() -> None:
    torch.manual_seed(0)
    layer = Coupling(WN(3 + 4, 3, 8, 5, 2, 3, True), bound=0.5)
    torch.nn.init.normal_(layer.wn.end.weight, std=2.0)
    given = torch.randn(2, 5, 7), torch.randn(2, 4, 7)
    assert_invertible(layer, torch.randn(2, 6, 7), *given)
    _, log_det = layer(torch.randn(2, 6, 7), *given)
    assert 0.5 < log_det.abs().max() <= 0.5 * 3 * 7


def test_the_harmonic_layer() -> None:
    torch.manual_seed(0)
    layer = HarmonicLayer(WN(12, 6, 8, 5, 2, 3, True), bound=2.0)
    torch.nn.init.normal_(layer.wn.end.weight, std=0.3)
    assert_invertible(layer, torch.randn(2, 6, 7), torch.randn(2, 5, 7), torch.randn(2, 12, 7))


@pytest.mark.parametrize("squeeze", [LappedSqueeze(64), LappedSqueeze(8), PolyphaseSqueeze(8)])
def test_squeezes_are_orthonormal(squeeze: LappedSqueeze | PolyphaseSqueeze) -> None:
    audio = torch.randn(2, 1024)
    groups = squeeze(audio)
    assert groups.shape == (2, squeeze.group, 1024 // squeeze.group + squeeze.extra_groups)
    assert torch.allclose(squeeze.inverse(groups), audio, atol=1e-5)
    assert torch.allclose(groups.square().sum(), audio.square().sum(), rtol=1e-5)


@pytest.mark.parametrize("squeeze,causal,conditioning,mel_scale", KINDS)
def test_every_kind_of_voice_inverts(squeeze: str, causal: bool, conditioning: str, mel_scale: bool) -> None:
    voice = random_voice(tiny(squeeze=squeeze, causal=causal, conditioning=conditioning, mel_scale=mel_scale))
    audio, mel = 0.1 * torch.randn(2, 5 * 256), torch.randn(2, 80, 5) - 5.6
    with torch.no_grad():
        z, log_det = voice(audio, mel)
        assert z.shape == (2, 64, 20 + voice.squeeze.extra_groups) and log_det.shape == (2,)
        assert torch.allclose(voice.inverse(z, mel), audio, atol=1e-4)


def test_log_det_of_the_whole_network() -> None:
    voice = random_voice(WaveGlowConfig(**SMALL | {"squeeze": "polyphase", "group": 128, "layers": 2}))
    audio, mel = 0.1 * torch.randn(1, 256), torch.randn(1, 80, 1) - 5.6
    jacobian = torch.autograd.functional.jacobian(lambda a: voice(a, mel)[0].flatten(), audio)[:, 0]
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], voice(audio, mel)[1][0], atol=1e-2)


@pytest.mark.parametrize("config", [tiny(causal=True), sourced()])
def test_causal_inverse_never_looks_ahead(config: WaveGlowConfig) -> None:
    voice = random_voice(config)
    z, mel = torch.randn(1, 64, 41), torch.randn(1, 80, 10) - 5.6
    with torch.no_grad():
        before = voice.inverse(z, mel)
        z[:, :, 24:] += 1.0
        mel[:, :, 7:] += 1.0  # frame 6 sees frame 7, group 24 begins frame 6
        after = voice.inverse(z, mel)
    assert torch.equal(before[:, : 23 * 64], after[:, : 23 * 64])
    assert not torch.allclose(before[:, 23 * 64 :], after[:, 23 * 64 :])


@pytest.mark.parametrize("version", [1, 2])
def test_kept_voices_say_what_they_said(version: int) -> None:
    """Vectors of a small voice without a source, by the code before sources; of one with, by code that agreed with its model."""
    voice, vectors = (
        load(DATA / f"format_{version}.safetensors"),
        load_file(DATA / f"format_{version}_vectors.safetensors"),
    )
    source = voice.free_source(vectors["mel"], vectors.get("offset"))
    with torch.no_grad():
        audio = voice.inverse(vectors["z"], vectors["mel"], source=source)
        z, log_det = voice(vectors["speech"], vectors["mel"], source=source)
    torch.testing.assert_close(audio, vectors["audio"], atol=1e-5, rtol=0)
    torch.testing.assert_close(z, vectors["z_of_speech"], atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, vectors["log_det"], atol=0, rtol=1e-4)
    if source is not None:
        torch.testing.assert_close(source.phase, vectors["phase"], atol=1e-9, rtol=0)
        torch.testing.assert_close(source.voicing, vectors["voicing"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("frames", [FrameEncoder(80, 12, 4, 1, -5.6, 2.1), Upsampler(80, 256, 8, 1024)])
def test_conditioning_as_products(frames: FrameEncoder | Upsampler) -> None:
    """The folded form on windows equals the convolutions."""
    mel = torch.randn(2, 80, 6)
    normal = (mel - frames.mel_mean) / frames.mel_std
    padded = torch.nn.functional.pad(normal, (frames.past_frames, frames.look_ahead_frames), mode=frames.pad)
    x = padded.unfold(2, frames.past_frames + 1 + frames.look_ahead_frames, 1).permute(0, 2, 3, 1).flatten(2)
    with torch.no_grad():
        for weight, bias, silu in frames.linears():
            x = torch.nn.functional.linear(x, weight, bias)
            x = torch.nn.functional.silu(x) if silu else x
        groups = x.unflatten(2, (frames.groups_per_frame, -1)).flatten(1, 2)
        assert torch.allclose(groups.transpose(1, 2), frames(mel), atol=1e-5)


def test_geometry_errors_name_the_setting() -> None:
    with pytest.raises(ValueError, match="squeeze must be one of polyphase, lapped; got 'wavelet'"):
        WaveGlowConfig(squeeze="wavelet")
    with pytest.raises(ValueError, match="group must be a divisor of the hop, 256; got 60"):
        WaveGlowConfig(group=60)
    with pytest.raises(ValueError, match="early_size"):
        WaveGlowConfig(early_size=32)
    with pytest.raises(ValueError, match="z has shape"):
        WaveGlow(tiny()).inverse(torch.zeros(1, 64, 4), torch.zeros(1, 80, 1))
    with pytest.raises(ValueError, match=r"limiter_knee must be a number, above 0 and below 1; got 1\.0"):
        WaveGlowConfig(limiter_knee=1.0)
    with pytest.raises(ValueError, match=r"source must be none, unless squeeze is lapped, causal is true"):
        WaveGlowConfig.sourced(causal=False)


def test_stock_geometry_is_the_published_one() -> None:
    config = WaveGlowConfig.stock()
    assert config.reach_groups == 3060 and config.rows == [8] * 4 + [6] * 4 + [4] * 4
    assert sum(p.numel() for p in WaveGlow(config).parameters()) == pytest.approx(87.7e6, rel=0.01)
