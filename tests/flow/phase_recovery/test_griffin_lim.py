"""Griffin-Lim as a vocoder: the samples are librosa's, in chunks of any size."""

import subprocess
import sys
import time

import librosa
import numpy as np
import pytest

from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder
from glowd.flow.phase_recovery.mel_inversion import MelInversion
from glowd.flow.vocoder import Origin, drain, render

FAST = GriffinLimVocoder(iterations=4)


@pytest.fixture(scope="module")
def vowel() -> Floats:
    """Log-mel [L, 80] of half a second of a gliding buzz."""
    rate_hz, t = 22050, np.arange(11025) / 22050
    phase = 2 * np.pi * np.cumsum(120 + 60 * t) / rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 30)) * np.hanning(len(t)) * 0.2
    return log_mel(voice.astype(np.float32))


def test_samples_equal_librosas(vowel: Floats) -> None:
    spectrum = MelInversion(MelFormat())(np.vstack([vowel, vowel[-1:]])).T
    expected = librosa.griffinlim(spectrum, n_iter=60, hop_length=256, random_state=np.random.default_rng(5))
    found = render(GriffinLimVocoder(), vowel, seed=5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_samples_have_the_given_mel(vowel: Floats) -> None:
    began = time.perf_counter()
    audio = render(GriffinLimVocoder(), vowel)
    rtf = (time.perf_counter() - began) / (len(audio) / 22050)
    error = np.abs(log_mel(audio)[: len(vowel)] - vowel).mean()
    print(f"Griffin-Lim, 60 iterations: log-mel error {error:.3f}, RTF {rtf:.2f}")
    # Bands above the voice are silent; leakage into them is most of the error.
    assert error < 0.4
    assert np.abs(log_mel(np.roll(audio, 4000))[: len(vowel)] - vowel).mean() > 3 * error


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 17, 44])
def test_frames_give_exactly_a_hop_each(vowel: Floats, frames: int) -> None:
    audio = render(FAST, vowel[:frames])
    assert audio.shape == (frames * 256,) and np.isfinite(audio).all()


def test_no_frames_give_no_samples() -> None:
    assert render(FAST, np.zeros((0, 80), np.float32)).shape == (0,)


def test_chunks_do_not_change_samples(vowel: Floats) -> None:
    whole = render(FAST, vowel, seed=3, chunk_frames=1000)
    stream = FAST.open(seed=3)
    for begin in range(0, len(vowel), 7):
        stream.push(vowel[begin : begin + 7])
        assert list(drain(FAST, stream, 5)) == []
    stream.end()
    chunks = list(drain(FAST, stream, 5))
    assert [len(chunk) for chunk in chunks[:-1]] == [5 * 256] * (len(chunks) - 1)
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert stream.done and stream.samples_out == len(vowel) * 256


def test_seed_decides_the_phase(vowel: Floats) -> None:
    first, again, other = (render(FAST, vowel[:10], seed=seed) for seed in (-1, -1, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_streams_of_one_vocoder_are_independent(vowel: Floats) -> None:
    a, b = FAST.open(seed=1), FAST.open(seed=2)
    assert FAST.key(a, 4) == FAST.key(a, 8) != FAST.key(b, 4)
    a.push(vowel[:10])
    b.push(vowel[10:25])
    a.end()
    b.end()
    first, second = np.concatenate(list(drain(FAST, a, 6))), np.concatenate(list(drain(FAST, b, 6)))
    np.testing.assert_array_equal(first, render(FAST, vowel[:10], seed=1))
    np.testing.assert_array_equal(second, render(FAST, vowel[10:25], seed=2))


def test_other_mel_format_is_used() -> None:
    format = MelFormat(rate_hz=16000, n_fft=800, hop=200, win=800, n_mels=40, fmax_hz=7600.0)
    audio = render(GriffinLimVocoder(format, iterations=4), np.full((9, 40), -3.0, np.float32))
    assert audio.shape == (9 * 200,)


def test_properties_are_those_of_whole_utterances() -> None:
    assert FAST.whole_utterance and (FAST.look_ahead_frames, FAST.latency_samples) == (0, 0)
    with pytest.raises(ValueError, match="first_frame is 7; allowed: 0"):
        FAST.open(origin=Origin(7))


def test_import_needs_no_torch() -> None:
    program = (
        "import sys, numpy; from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder as V; "
        "V(iterations=1).warm_up(1, 4); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
