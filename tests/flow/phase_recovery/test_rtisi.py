"""RTISI-LA: the same samples for every chunking and batch, exact timelines, and closer to the mel than random phase."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.phase_recovery.griffin_lim import GriffinLimVocoder
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.vocoder import Origin, drain, render
from tests.harness.mels import speech

MEL = speech()[100:160]
VOICE = RtisiVocoder()
KINDS = [RtisiVocoder(iterations=3, look_ahead_frames=k) for k in (0, 1, 4)]


def streamed(vocoder: RtisiVocoder, mel: Floats, cuts: list[int], limits: list[int], seed: int = 0) -> Floats:
    stream, parts, at = vocoder.open(seed), [np.zeros(0, np.float32)], 0
    for i, cut in enumerate([*cuts, len(mel)]):
        stream.push(mel[at : at + cut])
        at = min(at + cut, len(mel))
        parts += list(drain(vocoder, stream, limits[i % len(limits)]))
        assert sum(map(len, parts)) == stream.samples_out == stream.frames_done * vocoder.hop
        assert stream.frames_done == max(0, at - vocoder.look_ahead_frames)
    stream.end()
    parts += list(drain(vocoder, stream, limits[-1]))
    assert stream.done
    return np.concatenate(parts)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(0, 40), st.lists(st.integers(1, 12), max_size=12),
    st.lists(st.integers(1, 17), min_size=1, max_size=4), st.integers(0, 2**63),
)  # fmt: skip
def test_chunks_do_not_change_samples(
    vocoder: RtisiVocoder, frames: int, cuts: list[int], limits: list[int], seed: int
) -> None:
    audio = streamed(vocoder, MEL[:frames], cuts, limits, seed)
    assert audio.dtype == np.float32 and audio.shape == (frames * 256,) and np.isfinite(audio).all()
    np.testing.assert_array_equal(audio, render(vocoder, MEL[:frames], seed, chunk_frames=1000))


def test_streams_in_one_call_are_independent() -> None:
    """Eleven streams, of different frames and seeds, at different places: each says what it says alone."""
    mels = [MEL[i : i + 24 + i] for i in range(11)]
    streams = [VOICE.open(seed=i) for i in range(11)]
    parts: list[list[Floats]] = [[] for _ in mels]
    for i, (stream, mel) in enumerate(zip(streams, mels)):
        stream.push(mel)
        stream.end()
        parts[i] += [VOICE.step([stream], 1 + i % 2)[0]]
    while together := [i for i, stream in enumerate(streams) if (VOICE.ready_frames(stream, 3) or 0) == 3]:
        assert len({VOICE.key(streams[i], 3) for i in together}) == 1
        for i, samples in zip(together, VOICE.step([streams[i] for i in together], 3)):
            parts[i].append(samples)
    for i, stream in enumerate(streams):
        parts[i] += list(drain(VOICE, stream, 3))
        np.testing.assert_array_equal(np.concatenate(parts[i]), render(VOICE, mels[i], seed=i))


def test_first_step_of_a_stream_has_a_key_of_its_own() -> None:
    begun, fresh = VOICE.open(), VOICE.open()
    begun.push(MEL)
    fresh.push(MEL)
    assert VOICE.key(begun, 4) == VOICE.key(fresh, 4)
    VOICE.step([begun], 4)
    assert VOICE.key(begun, 4) != VOICE.key(fresh, 4) != VOICE.key(fresh, 3)


def test_look_ahead_is_as_declared() -> None:
    """Frame f is rendered with frame f + look_ahead, and not without; and frames after that do not change it."""
    for vocoder in KINDS:
        stream = vocoder.open()
        stream.push(MEL[: vocoder.look_ahead_frames])
        assert vocoder.ready_frames(stream, 4) is None
        stream.push(MEL[vocoder.look_ahead_frames : vocoder.look_ahead_frames + 1])
        assert vocoder.ready_frames(stream, 4) == 1
        first = vocoder.step([stream], 1)[0]
        assert vocoder.ready_frames(stream, 4) is None
        np.testing.assert_array_equal(first, render(vocoder, MEL)[:256])
        changed = np.concatenate([MEL[: vocoder.look_ahead_frames], np.full((9, 80), -3.0, np.float32)])
        assert np.abs(render(vocoder, changed)[:256] - first).max() > 0


def test_samples_have_the_given_mel() -> None:
    """The goal of the iterations: one is not enough, and sixteen are not for nothing."""
    mel, error = speech(), []
    for vocoder in (VOICE, RtisiVocoder(look_ahead_frames=0, iterations=1)):
        error.append(float(np.abs(log_mel(render(vocoder, mel))[: len(mel)] - mel).mean()))
    print(f"log-mel error {error[0]:.3f}, of one iteration without look-ahead {error[1]:.3f}")
    assert error[0] < 0.2 < 0.5 < error[1]


TONE = (np.sin(2 * np.pi * 440 * np.arange(22050) / 22050) * 0.5).astype(np.float32)


def test_steady_tone_is_continuous_over_chunks() -> None:
    """A sine comes back as one sine: the phase goes on from frame to frame, so nearly all energy is at one frequency."""
    audio = render(VOICE, log_mel(TONE), chunk_frames=4)[4096 : 4096 + 8192]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    peak = int(spectrum.argmax())
    assert abs(peak * 22050 / 8192 - 440) < 22
    assert spectrum[peak - 8 : peak + 9].sum() > 0.9 * spectrum.sum()


def test_level_is_right_up_to_both_ends() -> None:
    """A tone without beginning or end begins and ends at its level."""
    audio = render(VOICE, np.repeat(log_mel(TONE)[40:41], 60, axis=0))
    levels_db = 20 * np.log10(np.sqrt((audio.reshape(-1, 256) ** 2).mean(axis=1)) / (0.5 / np.sqrt(2)))
    print(levels_db.round(1))
    assert np.abs(levels_db).max() < 3 and np.abs(levels_db[2:-2]).max() < 1


def test_seed_decides_the_phase() -> None:
    first, again, other = (render(VOICE, MEL[:10], seed=seed) for seed in (-1, -1, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_silence_stays_silent() -> None:
    audio = render(VOICE, np.full((40, 80), np.log(1e-5), np.float32))
    assert 0 < np.abs(audio).max() < 1e-3


def test_other_mel_format_is_used() -> None:
    format = MelFormat(rate_hz=16000, n_fft=800, hop=200, win=800, n_mels=40, fmax_hz=7600.0)
    for hop in (200, 100, 400):
        vocoder = RtisiVocoder(MelFormat(**{**format.to_dict(), "hop": hop}), iterations=2)
        assert vocoder.look_ahead_frames == 2 + 400 // hop
        audio = streamed(vocoder, np.full((9, 40), -3.0, np.float32), [4], [3])
        assert audio.shape == (9 * hop,) and np.isfinite(audio).all()


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="first_frame is 7; allowed: 0"):
        VOICE.open(origin=Origin(7))
    with pytest.raises(ValueError, match="look_ahead_frames is -1 and iterations 4; allowed: at least 0 and 1"):
        RtisiVocoder(look_ahead_frames=-1, iterations=4)
    with pytest.raises(ValueError, match="iterations 0"):
        RtisiVocoder(iterations=0)


def test_stream_of_another_vocoder_is_an_error() -> None:
    own, foreign = VOICE.open(), GriffinLimVocoder().open()
    for stream in (own, foreign):
        stream.push(MEL[:10])
    with pytest.raises(AttributeError, match="GriffinLimStream"):
        VOICE.step([own, foreign], 2)  # type: ignore[list-item]
    assert own.frames_done == 0


def test_properties_are_those_of_a_live_vocoder() -> None:
    assert not VOICE.whole_utterance and (VOICE.look_ahead_frames, VOICE.latency_samples) == (4, 0)
    assert VOICE.history_frames == 2**31 - 1, "phases rest on the whole past: a new engine begins at frame 0"


def test_import_needs_no_torch_and_no_librosa() -> None:
    program = (
        "import sys; from glowd.flow.phase_recovery.rtisi import RtisiVocoder as V; "
        "V(iterations=1).warm_up(2, 4); sys.exit(any(m in sys.modules for m in ('torch', 'librosa', 'numba')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
