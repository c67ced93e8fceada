"""Each metric on signals whose answer is known."""

import builtins
from typing import Any

import numpy as np
import pytest
import soxr

from glowd.flow.evaluation import metrics
from glowd.flow.mel import Floats, MelFormat, log_mel
from tests.harness.mels import SENTENCE
from tests.harness.recordings import voice_like

RATE_HZ = 22050
FORMAT = MelFormat()


@pytest.fixture(scope="module")
def speech() -> Floats:
    from glowd.flow.recordings import read_audio

    return read_audio(SENTENCE, RATE_HZ)[: 3 * RATE_HZ]


def noise(count: int, rms: float, seed: int = 0) -> Floats:
    return (rms * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def harmonics(f0_hz: float, seconds: float = 1.5) -> Floats:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = [np.sin(2 * np.pi * k * f0_hz * t) / k for k in range(1, 6)]
    return (0.2 * np.sum(tones, axis=0)).astype(np.float32)


def test_equal_signals_have_the_best_figures(speech: Floats) -> None:
    pitch = metrics.pitch(speech, FORMAT)
    assert metrics.pesq_wb(speech, speech, RATE_HZ) == pytest.approx(4.644, abs=0.001)
    assert metrics.stoi(speech, speech, RATE_HZ) == pytest.approx(1)
    assert metrics.stoi(speech, speech, RATE_HZ, extended=True) == pytest.approx(1)
    assert metrics.multi_resolution_stft(speech, speech, RATE_HZ) == 0
    assert metrics.voicing_f1(pitch, pitch) == 1
    assert metrics.f0_median_cents(pitch, pitch) == metrics.f0_gross(pitch, pitch) == 0
    assert metrics.difference_max(speech, speech) == 0


def test_more_noise_is_worse_by_every_metric(speech: Floats) -> None:
    mel, pitch = log_mel(speech), metrics.pitch(speech, FORMAT)

    def judged(rms: float) -> dict[str, float]:
        noisy = speech + noise(len(speech), rms)
        heard = metrics.pitch(noisy, FORMAT)
        return {  # signs such that higher is worse
            "pesq": -metrics.pesq_wb(speech, noisy, RATE_HZ),
            "stoi": -metrics.stoi(speech, noisy, RATE_HZ),
            "estoi": -metrics.stoi(speech, noisy, RATE_HZ, extended=True),
            "mel": metrics.mel_mae(mel, log_mel(noisy)),
            "mcd": metrics.mel_cepstral_distortion_db(mel, log_mel(noisy)),
            "stft": metrics.multi_resolution_stft(speech, noisy, RATE_HZ),
            "f1": -metrics.voicing_f1(pitch, heard),
            "dnsmos": -metrics.dnsmos_ovrl(noisy, RATE_HZ),
        }

    quiet, middle, loud = (judged(rms) for rms in (0.001, 0.01, 0.1))
    assert all(quiet[name] < middle[name] < loud[name] for name in quiet), (quiet, middle, loud)


def test_shifted_tone_differs_by_the_shift_in_cents() -> None:
    low, high, octave = (metrics.pitch(harmonics(f0_hz), FORMAT) for f0_hz in (200.0, 212.0, 400.0))
    assert (low.certain_hz > 0).mean() > 0.9 and np.median(low.hz[low.hz > 0]) == pytest.approx(200, rel=0.01)
    assert metrics.f0_median_cents(low, high) == pytest.approx(1200 * np.log2(212 / 200), abs=5)
    assert metrics.f0_gross(low, high) == 0 and metrics.f0_gross(low, octave) > 0.9


def track(*hz: float) -> Floats:
    return np.array(hz, np.float32)


def test_pitch_figures_equal_the_hand_computed() -> None:
    truth = metrics.Pitch(track(100, 100, 100, 0, np.nan), track(100, 100, 100, 0, 300))
    heard = metrics.Pitch(track(100, 200, 0, 100, 100), track(100, 200, 0, 100, 100))
    assert metrics.voicing_f1(truth, heard) == pytest.approx(2 / 3)
    assert metrics.f0_median_cents(truth, heard) == pytest.approx(600)  # of 0 and 1200
    assert metrics.f0_gross(truth, heard) == pytest.approx(1 / 2)


def test_dnsmos_is_what_its_library_says_of_16_khz(speech: Floats) -> None:
    from speechmos import dnsmos

    wide = soxr.resample(speech, RATE_HZ, 16000, quality="VHQ")
    assert metrics.dnsmos_ovrl(speech, RATE_HZ) == pytest.approx(dnsmos.run(wide, 16000)["ovrl_mos"], abs=1e-6)
    loud = speech * np.float32(
        0.999 / np.abs(speech).max()
    )  # resampling goes beyond full scale, which the library refuses
    assert 2 < metrics.dnsmos_ovrl(loud.clip(-0.5, 0.5) * 2, RATE_HZ) < 4


def test_mel_distances_of_a_known_difference_are_exact() -> None:
    mel = noise(50 * 80, 1.0).reshape(50, 80)
    assert metrics.mel_mae(mel, mel + 0.25) == pytest.approx(0.25, abs=1e-6)
    assert metrics.mel_cepstral_distortion_db(mel, mel + 0.25) == pytest.approx(0, abs=1e-5)  # a level is no distortion
    ripple = 0.1 * np.cos(np.pi * 5 * (np.arange(80) + 0.5) / 80)
    assert metrics.mel_cepstral_distortion_db(mel, (mel + ripple).astype(np.float32)) == pytest.approx(
        10 / np.log(10) * np.sqrt(2) * 0.1, rel=1e-4
    )


def test_half_amplitude_gives_known_spectral_distance(speech: Floats) -> None:
    # Spectral convergence |1 - a| and log-magnitude |ln a|; a little less where the magnitude is clamped.
    assert metrics.multi_resolution_stft(speech, speech * np.float32(0.5), RATE_HZ) == pytest.approx(
        0.5 + np.log(2), rel=0.02
    )


@pytest.mark.parametrize("group", [8, 64, 256])
def test_planted_tone_stands_out_of_the_comb_by_its_level(group: int) -> None:
    samples = noise(20 * RATE_HZ, 0.01)
    clean = metrics.comb_levels_db(samples, group)
    assert clean.shape == (group // 2 - 1,) and np.abs(clean).max() < 1.5 and abs(clean.mean()) < 0.3
    t = np.arange(len(samples))
    tooth, amplitude = 2, 0.003
    planted = samples + (amplitude * np.sin(2 * np.pi * tooth * t / group)).astype(np.float32)
    levels = metrics.comb_levels_db(planted, group)
    # Tone power (a w / 2)^2 against noise power s^2 sum w^2 (1.5 w for a Hann window's 0.375 N over 0.25 N^2), whose mean
    # level in dB lies 10 log10(e^gamma) = 2.51 dB below its mean power.
    snr = (amplitude * 4096 / 4) ** 2 / (0.01**2 * 0.375 * 4096)
    assert levels[tooth - 1] == pytest.approx(10 * np.log10(snr) + 2.51, abs=1)
    others = np.delete(levels, tooth - 1)
    assert np.abs(others).max(initial=0) < 1.5


def test_tone_in_pauses_is_not_hidden_by_loud_speech() -> None:
    samples = voice_like(6, 0)
    samples[2 * RATE_HZ : 5 * RATE_HZ] = noise(3 * RATE_HZ, 1e-4)
    tone = (1e-3 * np.sin(2 * np.pi * 10 * np.arange(len(samples)) / 64)).astype(np.float32)
    assert metrics.comb_levels_db(samples + tone, 64)[9] > metrics.comb_levels_db(samples, 64)[9] + 10


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(RATE_HZ, np.float32), "is silent"),
        (noise(1000, 0.1), "too short: 0.05 s; needed: at least 0.5 s"),
        (np.full(RATE_HZ, np.nan, np.float32), "NaN"),
    ],
)
def test_silent_short_or_nan_signal_is_refused(samples: Floats, said: str) -> None:
    with pytest.raises(metrics.MetricError, match=said):
        metrics.require_sound(samples, RATE_HZ)


def test_diverged_render_is_clipped_at_full_scale() -> None:
    wild = np.array([0.5, -3e38, np.inf, np.nan], np.float32)
    assert metrics.as_heard(wild).tolist() == [0.5, -1, 1, 0]
    assert metrics.peak(wild) == metrics.peak(np.array([0, np.nan], np.float32)) == metrics.BEYOND
    assert metrics.peak(np.array([1.5, -2.0], np.float32)) == 2 <= metrics.OVERLOAD  # loud, but it speaks


def test_undefined_metric_raises(speech: Floats) -> None:
    nothing = np.zeros_like(speech)
    unvoiced = metrics.Pitch(np.zeros(4, np.float32), np.zeros(4, np.float32))
    for take in (
        lambda: metrics.pesq_wb(nothing, speech, RATE_HZ),
        lambda: metrics.stoi(speech[:5000], speech[:5000], RATE_HZ),
        lambda: metrics.f0_median_cents(unvoiced, unvoiced),
        lambda: metrics.voicing_f1(unvoiced, unvoiced),
        lambda: metrics.comb_levels_db(speech[:4000], 64),
        lambda: metrics.difference_max(speech, speech[1:]),
    ):
        with pytest.raises(metrics.MetricError):
            take()


def test_missing_library_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "pesq":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", lambda name: without(name))
    with pytest.raises(
        metrics.MetricError, match=r"needs pesq, which is missing; install it.*pip install -e '\.\[eval\]'"
    ):
        metrics.library("pesq")
