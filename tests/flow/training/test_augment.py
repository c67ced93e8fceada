"""Coloured recordings: 16-bit, within full scale, filtered as the random numbers decide, with their own mel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glowd.flow.mel import MelFormat, log_mel
from glowd.flow.training import augment
from glowd.flow.training.data import FULL_SCALE, Segments, load_clips
from tests.harness.recordings import write_recordings

FORMAT = MelFormat()


def noise(batch: int = 4, samples: int = 8192) -> Tensor:
    """White noise on the 16-bit grid [B, T]."""
    drawn = 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))
    return (drawn * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE


def chances(
    level: float = 0.8, tilt: float = 0.5, cuts: float = 0.9, where: float = 0.0, whether: float = 0.0
) -> Tensor:
    """The same decisions for four segments; the defaults change nothing but the grid."""
    return torch.tensor([[whether, level, tilt, cuts, where]]).repeat(4, 1)


def band_db(audio: Tensor, low_hz: float, high_hz: float) -> float:
    power = torch.fft.rfft(audio).abs().square().mean(0)
    hz = torch.fft.rfftfreq(audio.shape[1], 1 / FORMAT.rate_hz)
    return 10 * float(power[(hz >= low_hz) & (hz < high_hz)].mean().log10())


def test_segments_not_chosen_are_unchanged() -> None:
    audio = noise()
    assert augment.coloured(audio, chances(whether=0.5), 0.5, FORMAT) is audio
    mixed = chances(level=0.2)
    mixed[1, 0] = 0.9
    changed = augment.coloured(audio, mixed, 0.5, FORMAT)
    assert torch.equal(changed[1], audio[1]) and not torch.equal(changed[0], audio[0])


@pytest.mark.parametrize(
    ("decided", "low_hz", "high_hz", "change_db"),
    [
        (chances(level=0.2), 100, 10_000, -18.0),  # -24 + 0.2 * 30
        (chances(tilt=0.0), 480, 520, 4.0),  # -4 dB per octave, one below the pivot
        (chances(tilt=0.0), 3900, 4100, -8.0),
        (chances(cuts=0.1), 5000, 10_000, -60.0),  # what the grid leaves of it: at least so far down
    ],
)
def test_level_tilt_and_cut_follow_the_numbers(
    decided: Tensor, low_hz: float, high_hz: float, change_db: float
) -> None:
    audio = noise()
    found = band_db(augment.coloured(audio, decided, 1.0, FORMAT), low_hz, high_hz) - band_db(audio, low_hz, high_hz)
    assert found < change_db if change_db <= -60 else found == pytest.approx(change_db, abs=0.6)


def test_coloured_audio_is_16_bit_and_below_full_scale() -> None:
    loud = noise() * 4
    changed = augment.coloured(loud, chances(level=1.0, tilt=1.0), 1.0, FORMAT)
    assert 0.9 < changed.abs().max() < 1
    assert torch.equal(changed * FULL_SCALE, (changed * FULL_SCALE).round())


@pytest.mark.parametrize(("rate_hz", "highest_hz"), [(16_000, 8000), (22_050, 11_025), (44_100, 22_050)])
def test_cuts_reach_from_the_lowest_to_half_the_rate(rate_hz: int, highest_hz: float) -> None:
    format, audio = MelFormat(rate_hz=rate_hz), noise()
    hz = torch.fft.rfftfreq(audio.shape[1], 1 / rate_hz)
    for where in (0.0, 0.5, 0.9):
        cut_hz = augment.LOWEST_CUT_HZ + where * (highest_hz - augment.LOWEST_CUT_HZ)
        power = torch.fft.rfft(augment.coloured(audio, chances(cuts=0.1, where=where), 1.0, format)).abs().square()
        kept, cut = (power[:, near].mean() for near in (hz < 0.98 * cut_hz, hz > 1.02 * cut_hz))
        assert kept > 1e5 * cut


def test_coloured_segments_have_their_mel_and_resume(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data"), FORMAT, 4096)
    segments = Segments(clips, 8, seed=3, colour=0.5)
    before = segments.state_dict()
    audio, mel, _ = segments.next()
    plain = Segments(clips, 8, seed=3).next().audio
    changed = [i for i in range(8) if (audio[i] - plain[i]).abs().max() > 2 / FULL_SCALE]
    assert 0 < len(changed) < 8
    for i in changed:
        expected = log_mel(audio[i].numpy()).T[:, 2:14]
        assert np.abs(mel[i].numpy()[:, 2:14] - expected)[expected > -6].max() < 0.05  # dequantisation noise apart
    segments.load_state_dict(before)
    again = segments.next()
    assert torch.equal(again[0], audio) and torch.equal(again[1], mel)


# ---------------------------------------------------------------------- pace


def test_pace_of_one_changes_no_sample() -> None:
    audio = (noise(1, 4000)[0] * FULL_SCALE).to(torch.int16)
    found = augment.at_pace(audio, torch.tensor([100, 900]), torch.ones(2, dtype=torch.float64), 2000)
    for begin, segment in zip((100, 900), found):
        assert torch.equal(segment * FULL_SCALE, audio[begin : begin + 2000].float())


@pytest.mark.parametrize("pace", [0.85, 1.1, 1.25])
def test_pace_moves_a_tone_and_its_phase(pace: float) -> None:
    cycles = 440 / FORMAT.rate_hz * torch.arange(20_000, dtype=torch.float64)
    audio = (10_000 * torch.sin(2 * torch.pi * cycles)).round().to(torch.int16)
    begins, paces = torch.tensor([1000]), torch.tensor([pace], dtype=torch.float64)
    found = augment.at_pace(audio, begins, paces, 8000)[0]
    phase = augment.phase_at_pace(torch.remainder(cycles, 1).half(), begins, paces, 8000)[0]
    at = (1000 + pace * torch.arange(8000, dtype=torch.float64)) * 440 / FORMAT.rate_hz
    expected = 10_000 / FULL_SCALE * torch.sin(2 * torch.pi * at)
    assert (found - expected).abs().max() < 5e-4
    distance = torch.remainder(phase - at + 0.5, 1) - 0.5
    assert distance.abs().max() < 2e-3  # the phase is stored in float16


def test_faster_pace_folds_nothing_back() -> None:
    tone = torch.sin(2 * torch.pi * 10_500 / FORMAT.rate_hz * torch.arange(20_000, dtype=torch.float64))
    audio = (10_000 * tone).round().to(torch.int16)
    found = augment.at_pace(audio, torch.tensor([1000]), torch.tensor([1.25], dtype=torch.float64), 8000)[0]
    assert found.square().mean().sqrt() < 0.1 * 10_000 / FULL_SCALE / 2**0.5


def test_paced_segments_have_their_own_mel_and_stay_inside(tmp_path: Path) -> None:
    clips = load_clips(write_recordings(tmp_path / "data", 3, seconds=0.4), FORMAT, 4096)
    plain = Segments(clips, 64, seed=0).next()
    audio, mel, _ = Segments(clips, 64, seed=0, pace=1.0).next()
    assert (audio - plain.audio).abs().amax(1).min() > 0.01  # all are changed
    again = log_mel(((audio[0] * FULL_SCALE).round() / FULL_SCALE).numpy(), FORMAT)[:16].T
    assert np.abs(mel[0].numpy() - again)[:, 3:-3].mean() < 0.05
    starts = clips.starts
    fastest = clips.possible_paces(starts, torch.full((len(starts),), 1.25, dtype=torch.float64))
    end_frame = starts + torch.ceil(fastest * clips.segment_frames)
    frames_per_clip = int(0.4 * 22050) // 256
    assert bool((end_frame <= (starts // frames_per_clip + 1) * frames_per_clip).all()) and fastest.min() > 0.9
