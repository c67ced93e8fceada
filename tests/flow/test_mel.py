"""The mel front end: parity with librosa, and streamed == whole."""

import re
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowd.flow.mel import MelFormat, MelStream, filter_bank, log_mel


def speechlike(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 22050
    return (0.3 * np.sin(2 * np.pi * 180 * t * (1 + 0.1 * t)) + 0.02 * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [513, 1024, 22050, 30001])
def test_log_mel_equals_librosas(samples: int) -> None:
    audio = speechlike(samples)
    spectrum = np.abs(librosa.stft(audio, n_fft=1024, hop_length=256, win_length=1024, pad_mode="reflect"))
    expected = np.log(
        np.maximum(librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000) @ spectrum, 1e-5)
    )
    mel = log_mel(audio)
    assert mel.shape == (samples // 256 + 1, 80) and mel.dtype == np.float32
    # A logarithm magnifies rounding near the floor, so compare magnitudes there and logarithms elsewhere.
    assert np.abs(np.exp(mel) - np.exp(expected.T)).max() <= 1e-5
    assert np.abs(mel - expected.T)[expected.T > -6].max() <= 1e-5


@pytest.mark.parametrize("format", [MelFormat(), MelFormat(rate_hz=16000, n_fft=512, win=512, n_mels=40, fmin_hz=1200)])
def test_filter_bank_equals_librosas(format: MelFormat) -> None:
    expected = librosa.filters.mel(
        sr=format.rate_hz, n_fft=format.n_fft, n_mels=format.n_mels, fmin=format.fmin_hz, fmax=format.fmax_hz
    )
    np.testing.assert_allclose(filter_bank(format), expected, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(600, 9000), st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_streamed_mel_equals_whole(samples: int, cuts: list[int]) -> None:
    audio, stream, parts, at = speechlike(samples), MelStream(), [], 0
    for cut in cuts:
        parts.append(stream.push(audio[at : at + cut]))
        at += cut
    parts += [stream.push(audio[at:]), stream.end()]
    np.testing.assert_allclose(np.concatenate(parts), log_mel(audio), atol=1e-6)


def test_wrong_audio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 100\]"):
        log_mel(np.zeros((2, 100), np.float32))
    with pytest.raises(ValueError, match="512 samples; a mel needs at least 513"):
        log_mel(np.zeros(512, np.float32))


def test_format_round_trips_and_refuses_unknown_keys() -> None:
    assert MelFormat.from_dict(MelFormat(hop=200).to_dict()) == MelFormat(hop=200)
    with pytest.raises(ValueError, match="unknown setting htk"):
        MelFormat.from_dict({"htk": 1})


@pytest.mark.parametrize(
    "change,error",
    [
        ({"hop": 0}, "hop must be a whole number, from 1 to 16384; got 0"),
        ({"win": 2048}, "win must be at most n_fft, 1024; got 2048"),
        ({"fmin_hz": 9000}, "fmin_hz must be below fmax_hz, 8000; got 9000.0"),
        ({"n_mels": "80"}, "n_mels must be a whole number, from 1 to 512; got '80'"),
    ],
)
def test_impossible_format_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        MelFormat.from_dict(change)
