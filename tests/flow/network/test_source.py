"""The source: pulses of known harmonics, a phase that no cutting changes, and a voice that inverts with it."""

import math

import pytest
import torch

from glowd.flow.network.bounds import limited
from glowd.flow.network.pitch import PitchConfig, PitchNetwork
from glowd.flow.network.source import Source, SourceConfig, free_running, pulses
from glowd.flow.network.waveglow import WaveGlowConfig
from tests.harness.voices import random_voice, sourced

HOP, RATE_HZ = 256, 22050


def some_source(batch: int, samples: int, f0_hz: float = 210.0) -> Source:
    phase = torch.arange(samples).double() * f0_hz / RATE_HZ + torch.rand(batch, 1).double()
    return Source(phase, torch.full_like(phase, f0_hz), torch.full_like(phase, 0.7))


# ------------------------------------------------------------------- pulses


@pytest.mark.parametrize(("f0_hz", "harmonics"), [(70.0, 80), (210.0, 38), (4100.0, 1), (9000.0, 1)])
def test_pulses_are_the_sums_of_their_harmonics(f0_hz: float, harmonics: int) -> None:
    source = some_source(2, 700, f0_hz)
    angle = 2 * math.pi * source.phase[:, None] * torch.arange(1, harmonics + 1)[:, None]
    level = 0.7 * math.sqrt(2 / harmonics)
    found = pulses(source, SourceConfig())
    torch.testing.assert_close(found[:, 0].double(), level * angle.cos().sum(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 1].double(), level * angle.sin().sum(1), atol=1e-4, rtol=0)


def test_a_pulse_has_its_limit_where_the_phase_is_whole() -> None:
    whole = Source(torch.tensor([[0.0, 1.0, 1e-12, 5.0 - 1e-12]]), *torch.tensor([[[200.0] * 4], [[1.0] * 4]]))
    torch.testing.assert_close(pulses(whole, SourceConfig())[0, 0], torch.full((4,), 40 * math.sqrt(2 / 40)))
    assert pulses(whole, SourceConfig())[0, 1].abs().max() < 0.1


# -------------------------------------------------------------------- phase


def test_the_phase_is_the_integral_of_the_pitch() -> None:
    log_f0 = torch.full((1, 101), math.log(210.0))
    source, end = free_running(log_f0, torch.zeros(1, 101), torch.tensor([0.25]).double(), HOP, RATE_HZ)
    exact = 0.25 + torch.arange(1, 100 * HOP + 1).double() * 210 / RATE_HZ
    torch.testing.assert_close(source.phase[0], exact, atol=1e-4, rtol=0)
    assert end == source.phase[0, -1] and (source.voicing == 0.5).all()


def test_how_frames_are_cut_changes_no_bit_of_the_phase() -> None:
    torch.manual_seed(0)
    log_f0, logit = 5.3 + 0.3 * torch.randn(2, 41), torch.randn(2, 41)
    start = torch.tensor([0.1, 0.9]).double()
    whole, end = free_running(log_f0, logit, start, HOP, RATE_HZ)
    at, phase, parts = 0, start, []
    for frames in (1, 7, 16, 2, 14):
        cut = slice(at, at + frames + 1)
        part, phase = free_running(log_f0[:, cut], logit[:, cut], phase, HOP, RATE_HZ)
        parts.append(part)
        at += frames
    assert torch.equal(phase, end)
    for name in Source._fields:
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], 1), getattr(whole, name)), name


# -------------------------------------------------------------------- pitch


@pytest.mark.parametrize("bins", [0, 176])
def test_the_pitch_of_a_frame_is_the_same_in_any_batch(bins: int) -> None:
    torch.manual_seed(0)
    network = PitchNetwork(PitchConfig(bins=bins), 80, -5.6, 2.1)
    mel = (2 * torch.randn(2, 80, 50) - 5.6).double()
    with torch.no_grad():
        log_f0, logit = network(mel)
        for frame in (0, 1, 4, 30, 49):
            alone = network(mel[:1, :, : frame + 1])
            assert torch.equal(alone[0][0, -1], log_f0[0, frame]) and torch.equal(alone[1][0, -1], logit[0, frame])


def test_the_pitch_of_a_frame_knows_nothing_of_the_next() -> None:
    network = PitchNetwork(PitchConfig(past_frames=3, channels=8), 80, -5.6, 2.1)
    mel = torch.randn(1, 80, 12)
    before = network(mel)[0].detach()
    mel[:, :, 7] += 1
    after = network(mel)[0].detach()
    assert torch.equal(before[:, :7], after[:, :7]) and torch.equal(before[:, 11:], after[:, 11:])
    assert (before[:, 7:11] != after[:, 7:11]).all()


def test_pitch_is_the_likelier_of_two_octaves() -> None:
    network = PitchNetwork(PitchConfig(bins=176), 80, -5.6, 2.1)
    assert network.bins is not None
    low, high = network.bins[40], network.bins[97]
    rows = torch.full((3, 177), -20.0, dtype=torch.float64)
    rows[:, 40], rows[0, 97], rows[1, 97], rows[2, 97] = 0.0, -4.0, 0.0, 4.0
    log_f0, _ = network.read_out(rows)
    torch.testing.assert_close(log_f0.double(), torch.stack([low, (low + high) / 2, high]), atol=1e-3, rtol=0)


# ---------------------------------------------------------------- the voice


def test_a_voice_with_a_source_inverts() -> None:
    voice = random_voice(sourced())
    audio, mel, source = 0.1 * torch.randn(2, 6 * HOP), torch.randn(2, 80, 6) - 5.6, some_source(2, 6 * HOP)
    with torch.no_grad():
        z, log_det = voice(audio, mel, source=source)
        assert z.shape == (2, 64, 25) and log_det.shape == (2,)
        torch.testing.assert_close(voice.inverse(z, mel, source=source), audio, atol=1e-4, rtol=0)
        assert not torch.allclose(voice.inverse(z, mel), audio, atol=1e-3), "the source is heard"


def test_the_likelihood_needs_the_recordings_source() -> None:
    voice = random_voice(sourced())
    with pytest.raises(ValueError, match="its likelihood needs the recording's: give `source`"):
        voice.nll(torch.zeros(1, HOP), torch.zeros(1, 80, 1))
    assert voice.nll(torch.zeros(1, HOP), torch.zeros(1, 80, 1), source=some_source(1, HOP)).isfinite()


def test_training_moves_all_of_a_voice_but_its_pitch() -> None:
    voice = random_voice(sourced())
    voice.nll(0.1 * torch.randn(1, HOP), torch.randn(1, 80, 1) - 5.6, source=some_source(1, HOP)).backward()
    still = {name for name, value in voice.named_parameters() if value.grad is None}
    assert still and all(name.startswith("pitch.") for name in still)


def test_an_offset_turns_the_whole_source() -> None:
    voice, mel = random_voice(sourced()), torch.randn(1, 80, 5) - 5.6
    plain, turned = voice.free_source(mel), voice.free_source(mel, torch.tensor([0.3]))
    assert plain is not None and turned is not None
    torch.testing.assert_close(turned.phase - plain.phase, torch.full_like(plain.phase, 0.3))
    assert torch.equal(turned.f0_hz, plain.f0_hz)


def test_frames_beyond_speech_are_held_in_its_range() -> None:
    voice = random_voice(sourced())
    z, mel = torch.randn(1, 64, 13), torch.full((1, 80, 3), 2.5)
    with torch.no_grad():
        assert torch.equal(voice.inverse(z, mel), voice.inverse(z, mel + 60))
        assert torch.equal(voice.inverse(z, mel - 60), voice.inverse(z, mel - 600))


def test_the_limiter_leaves_speech_and_keeps_the_rest_below_1() -> None:
    audio = torch.tensor([-1e6, -1.0, -0.9, -0.4, 0.0, 0.9, 0.91, 1e6])
    bent = limited(audio, 0.9)
    assert torch.equal(bent[2:6], audio[2:6]) and bent.abs().max() <= 1 and 0.909 < bent[6] < 0.91
    assert -0.99 < bent[1] < -0.96 and torch.equal(limited(audio, None), audio)


def test_a_geometry_with_a_source_survives_its_own_dictionary() -> None:
    config = sourced()
    assert WaveGlowConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=r"unknown setting source\.pitch\.width \(known: past_frames, "):
        WaveGlowConfig.from_dict({"source": {"pitch": {"width": 3}}})
    with pytest.raises(ValueError, match="top_hz must be a number, from 1 to 48000; got 0"):
        SourceConfig(top_hz=0)
