"""Mel inversion: magnitudes have the given mel, more closely than librosa's, each frame independently."""

import librosa
import numpy as np
import pytest

from glowd.flow.mel import Floats, MelFormat, filter_bank
from glowd.flow.phase_recovery.mel_inversion import MelInversion
from tests.harness.mels import speech

MEL = speech()[::7]


def residual(magnitudes: Floats, mel: Floats = MEL) -> float:
    """Root mean square error in the bands, relative to theirs."""
    bands = np.exp(mel)
    return float(np.sqrt(((magnitudes @ filter_bank(MelFormat()).T - bands) ** 2).sum() / (bands**2).sum()))


def test_magnitudes_have_the_given_mel() -> None:
    found = MelInversion(MelFormat())(MEL)
    assert found.shape == (len(MEL), 513) and found.dtype == np.float32 and found.min() >= 0
    theirs = librosa.feature.inverse.mel_to_stft(np.exp(MEL).T, sr=22050, n_fft=1024, power=1.0, fmin=0.0, fmax=8000.0)
    print(f"residual {residual(found):.5f}, librosa's {residual(theirs.T):.5f}")
    assert residual(found) < 0.01
    assert residual(found) < residual(theirs.T)


def test_more_iterations_reduce_the_error() -> None:
    errors = [residual(MelInversion(MelFormat(), n)(MEL)) for n in (0, 1, 3, 10, 30)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05 * errors[0]


def test_magnitudes_above_the_highest_band_are_zero() -> None:
    found = MelInversion(MelFormat())(MEL)
    above = np.arange(513) * 22050 / 1024 >= 8000
    assert (found[:, above] == 0).all() and (found[:, ~above][:, 1:] > 0).all()


def test_frame_is_independent_to_the_last_bit() -> None:
    inversion = MelInversion(MelFormat())
    whole = inversion(MEL)
    for begin in range(9):
        for count in range(1, 10):
            part = inversion(MEL[begin : begin + count])
            np.testing.assert_array_equal(part, whole[begin : begin + count])


def test_no_frames_give_no_magnitudes() -> None:
    assert MelInversion(MelFormat())(MEL[:0]).shape == (0, 513)


def test_extreme_levels_stay_finite() -> None:
    for level in (np.log(1e-5), 0.0, 12.0):
        found = MelInversion(MelFormat())(np.full((2, 80), level, np.float32))
        assert np.isfinite(found).all() and residual(found, np.full((2, 80), level, np.float32)) < 0.05


def test_negative_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="iterations is -1; allowed: at least 0"):
        MelInversion(MelFormat(), -1)
