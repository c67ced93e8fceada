"""Frames that cannot be natural logs of speech are told apart from those that can."""

from typing import Any

import numpy as np
import pytest

from glowd.flow.mel import log_mel
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.levels import Steps
from glowd.flow.mel_formats.plausibility import Kind, Plausibility, Suspicion
from tests.flow.mel_formats import toolkits

FLOOR = np.float32(np.log(1e-5))
RATE_HZ = 22050


def judged(frames: Any, chunk: int = 16) -> list[Suspicion]:
    plausibility = Plausibility(MelDescription())
    frames = np.asarray(frames, np.float32)
    found = [s for at in range(0, len(frames), chunk) for s in plausibility.update(frames[at : at + chunk])]
    return found + plausibility.finish()


def only(frames: Any) -> Suspicion:
    (found,) = judged(frames)
    return found


# ---- no false alarms


@pytest.mark.parametrize("gain_db", [6, 0, -20, -40, -60])
def test_a_sentence_is_plausible_at_any_level(sound: Any, gain_db: float) -> None:
    assert judged(log_mel((sound * 10 ** (gain_db / 20)).astype(np.float32))) == []


@pytest.mark.parametrize("frames", [1, 5, 30])
def test_a_short_utterance_is_plausible(sentence: Any, frames: int) -> None:
    assert judged(sentence[60 : 60 + frames]) == []


def test_a_smooth_mel_is_plausible(sentence: Any) -> None:
    """Mels of acoustic models lack the fine structure of recordings."""
    smooth = np.stack([np.convolve(band, np.ones(5) / 5, "same") for band in sentence.T], axis=1)
    assert judged(smooth[2:-2]) == []


def test_a_whisper_is_plausible(sound: Any) -> None:
    """The sentence with noise in place of its phases."""
    spectra = np.fft.rfft(sound[: len(sound) // 256 * 256].reshape(-1, 256))
    random = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * random.random(spectra.shape))
    assert judged(log_mel((0.3 * np.fft.irfft(abs(spectra) * phases).ravel()).astype(np.float32))) == []


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.001, 0.0])
@pytest.mark.parametrize("kind", ["noise", "tone", "square", "chord", "beats"])
def test_other_sounds_are_plausible(kind: str, amplitude: float) -> None:
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    random = np.random.default_rng(0)
    envelope = np.exp(-6 * (time_s % 0.5))
    chord = np.mean([np.sin(2 * np.pi * hz * k * time_s) / k for hz in (220, 277, 330) for k in range(1, 9)], axis=0)
    made = {
        "noise": random.uniform(-1, 1, len(time_s)),
        "tone": np.sin(2 * np.pi * 440 * time_s),
        "square": np.sign(np.sin(2 * np.pi * 100 * time_s)),
        "chord": chord,
        "beats": envelope * (chord + 0.3 * random.standard_normal(len(time_s))),
    }[kind]
    assert judged(log_mel((amplitude * made / abs(made).max()).astype(np.float32))) == []


def test_digital_silence_is_plausible(sentence: Any) -> None:
    silence = np.full((200, 80), FLOOR)
    assert judged(np.concatenate([silence, sentence, silence])) == []


# ---- other scales


@pytest.mark.parametrize(
    ("words", "emitted"),
    [
        ("log10", toolkits.log10_mel),
        ("[-4, 4]", toolkits.coqui_db),
        ("[0, 1]", toolkits.unit_db),
        ("z-scores", lambda sound: toolkits.z_scored(toolkits.tacotron2(sound))[0]),
        ("z-scores", toolkits.matcha_normalised),
        ("without a logarithm", toolkits.magnitudes),
    ],
)
def test_another_scale_is_named_within_two_seconds(sound: Any, words: str, emitted: Any) -> None:
    suspicion = only(emitted(sound)[:172])
    assert suspicion.kind is Kind.SCALE and words in suspicion.text


def test_a_second_is_enough_whatever_the_chunks(sound: Any) -> None:
    frames = toolkits.log10_mel(sound)[:100]
    assert {tuple(judged(frames, chunk)) for chunk in (16, 25, 100)} == {tuple(judged(frames, 1))}
    assert judged(frames)


def test_a_lower_floor_is_named(sentence: Any) -> None:
    suspicion = only(np.where(sentence < -8, -18.4, sentence))
    assert suspicion.kind is Kind.FLOOR and "-18.4" in suspicion.text and "coqui" in suspicion.text


def test_the_scale_is_judged_by_what_the_voice_wants(sound: Any) -> None:
    """A longer window makes all values larger by the same amount."""
    wide = MelDescription(n_fft=2048, win=2048)
    plausibility = Plausibility(wide)
    louder = log_mel(sound) + np.float32(np.log(2))
    assert plausibility.update(louder) + plausibility.finish() == []


# ---- runs of frames


def test_padding_with_zeros_is_named_with_its_place(sentence: Any) -> None:
    suspicion = only(np.concatenate([sentence[:100], np.zeros((10, 80))]))
    assert suspicion.kind is Kind.PADDING and suspicion.first_frame == 100 and "padding = 0" in suspicion.text


def test_padding_at_the_floor_is_silence(sentence: Any) -> None:
    assert judged(np.concatenate([sentence, np.full((80, 80), -11.5129)])) == []


def test_a_frame_that_is_repeated_is_named(sentence: Any) -> None:
    loud = int(sentence.mean(axis=1).argmax())
    stuck = np.concatenate([sentence[:loud], np.repeat(sentence[loud : loud + 1], 60, axis=0)])
    suspicion = only(stuck)
    assert suspicion.kind is Kind.CONSTANT and suspicion.first_frame == loud


def test_values_in_the_other_order_are_named(sentence: Any) -> None:
    suspicion = only(np.ascontiguousarray(sentence.T).reshape(-1, 80))
    assert suspicion.kind is Kind.ORDER and "[frames, bands]" in suspicion.text


def test_each_kind_is_told_once(sound: Any) -> None:
    frames = np.tile(toolkits.log10_mel(sound), (4, 1))
    assert [suspicion.kind for suspicion in judged(frames)] == [Kind.SCALE]


def test_no_frames_are_no_suspicion() -> None:
    assert judged(np.zeros((0, 80))) == []


# ---- long utterances, of which not every frame is counted


def test_padding_late_in_a_long_utterance_is_found(sentence: Any) -> None:
    long = np.concatenate([sentence] * 6)
    long[2500:2550] = 0.0
    suspicion = only(long)
    assert (suspicion.kind, suspicion.first_frame) == (Kind.PADDING, 2500)


def test_a_wrong_scale_after_a_long_silence_is_found(sentence: Any) -> None:
    suspicion = only(np.concatenate([np.full((1000, 80), FLOOR), sentence / np.float32(np.log(10))]))
    assert suspicion.kind is Kind.SCALE and "log10" in suspicion.text


def test_steps_do_not_reach_over_frames_that_were_skipped(sentence: Any) -> None:
    steady, jumping = Steps(), Steps()
    for at in range(0, 400, 40):
        for steps, level in ((steady, 0), (jumping, at)):
            steps.add(sentence[at : at + 20] + np.float32(level))
            steps.skip()
    assert steady.frames == jumping.frames == 10 * 19
    assert jumping.ratio == pytest.approx(steady.ratio, rel=1e-3)
