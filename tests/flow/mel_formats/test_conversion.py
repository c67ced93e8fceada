"""Mels of other toolkits become the voice's: exactly, at a stated cost, or not at all."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from glowd.flow.mel import MelFormat, filter_bank
from glowd.flow.mel_formats.banks import bank_of
from glowd.flow.mel_formats.conversion import Converter, Fit, compare
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.presets import PRESETS, preset_for
from glowd.flow.mel_formats.statement import FormatError, read_statement, require_usable, voice_mels
from tests.flow.mel_formats import toolkits

VOICE = voice_mels(MelFormat().to_dict())
CLIPPED_DB = -80 * np.log(10) / 20


def converted(frames: Any, stated: dict[str, Any]) -> Any:
    return Converter(read_statement(stated, VOICE).mels, VOICE).convert(frames.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "emitted"),
    [
        ("tacotron2", toolkits.tacotron2),
        ("matcha", toolkits.tacotron2),
        ("matcha-lj", toolkits.matcha_normalised),
        ("nemo", toolkits.nemo),
        ("coqui", toolkits.coqui),
        ("log10", toolkits.log10_mel),
    ],
)
def test_an_exact_preset_gives_the_voices_mel(sound: Any, name: str, emitted: Any) -> None:
    np.testing.assert_allclose(converted(emitted(sound), {"preset": name}), toolkits.tacotron2(sound), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "emitted"), [("db-symmetric", toolkits.coqui_db), ("db-unit", toolkits.unit_db)]
)  # fmt: skip
def test_decibels_come_back_as_far_as_they_were_not_clipped(sound: Any, name: str, emitted: Any) -> None:
    wanted = np.maximum(toolkits.tacotron2(sound), CLIPPED_DB)
    np.testing.assert_allclose(converted(emitted(sound), {"preset": name}), wanted, atol=1e-5)


def test_z_scores_come_back_by_the_models_statistics(sound: Any) -> None:
    scores, mean, scale = toolkits.z_scored(toolkits.log10_mel(sound))
    stated = {"preset": "log10", "scale": scale.tolist(), "offset": mean.tolist()}
    np.testing.assert_allclose(converted(scores, stated), toolkits.tacotron2(sound), atol=1e-5)


def test_the_norm_of_the_same_bands_is_converted_exactly(sound: Any) -> None:
    emitted = np.log(np.maximum(toolkits.magnitudes(sound, norm=None), 1e-5))
    assert compare(replace(VOICE, norm="none"), VOICE).fit is Fit.EXACT
    np.testing.assert_allclose(converted(emitted, {"norm": "none"}), toolkits.tacotron2(sound), atol=1e-4)


def test_frames_one_by_one_give_the_same_as_all_at_once(sound: Any) -> None:
    mels = toolkits.log10_mel(sound, 80, 7600).astype(np.float32)
    converter = Converter(PRESETS["espnet-raw"].description, VOICE)
    pieces = [converter.convert(mels[index : index + 1]) for index in range(len(mels))]
    np.testing.assert_array_equal(np.concatenate(pieces), converter.convert(mels))


def test_stated_padding_becomes_silence(sentence: Any) -> None:
    padded = np.concatenate([sentence, np.zeros((5, 80), np.float32)])
    made = converted(padded, {"padding": 0.0})
    np.testing.assert_array_equal(made[:-5], sentence)
    np.testing.assert_array_equal(made[-5:], np.float32(np.log(1e-5)))


@pytest.mark.parametrize(
    ("stated", "at_most_db"),
    [
        ({"fmax_hz": 11025}, 2.0),
        ({"fmin_hz": 80, "fmax_hz": 7600}, 4.0),
        ({"bank": "htk", "norm": "none"}, 2.0),
        ({"n_mels": 100, "fmax_hz": 11025}, 2.0),
    ],
)
def test_other_bands_cost_what_is_said(sound: Any, stated: dict[str, Any], at_most_db: float) -> None:
    mels = read_statement({**stated, "allow_approximate": True}, VOICE).mels
    bank = {"htk": mels.bank == "htk", "norm": "slaney" if mels.norm == "slaney" else None}
    emitted = np.log(np.maximum(toolkits.magnitudes(sound, mels.fmin_hz, mels.fmax_hz, mels.n_mels, **bank), 1e-5))
    error = converted(emitted, {**stated, "allow_approximate": True}) - toolkits.tacotron2(sound)
    measured_db = float(np.sqrt(np.mean(error**2))) * 20 / np.log(10)
    said_db = compare(mels, VOICE).cost_db
    assert measured_db < at_most_db and said_db / 2 < measured_db < 2 * said_db


def test_the_banks_are_those_of_the_front_end() -> None:
    np.testing.assert_allclose(bank_of(VOICE), filter_bank(MelFormat()), atol=1e-8)


def test_the_htk_bank_is_librosas() -> None:
    import librosa

    mels = MelDescription(bank="htk", norm="none", n_mels=100, fmax_hz=11025.0)
    wanted = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=100, fmin=0, fmax=11025, htk=True, norm=None)
    np.testing.assert_allclose(bank_of(mels), wanted, atol=1e-5)


# ---- what is refused


def refusal(stated: dict[str, Any]) -> str:
    with pytest.raises(FormatError) as caught:
        require_usable(read_statement(stated, VOICE), VOICE, "glow")
    return str(caught.value)


def test_another_rate_is_refused_with_every_difference() -> None:
    said = refusal({"preset": "cosyvoice2", "allow_approximate": True})
    assert "rate_hz = 24000 (voice: 22050)" in said and "hop = 480 (voice: 256)" in said and "n_fft = 1920" in said
    assert "voice trained for this format" in said


def test_other_bands_are_refused_unless_it_is_allowed() -> None:
    said = refusal({"preset": "indextts2"})
    assert "fmax_hz = 11025 (voice: 8000)" in said and "allow_approximate" in said and "dB" in said
    stated = read_statement({"preset": "indextts2", "allow_approximate": True}, VOICE)
    assert require_usable(stated, VOICE, "glow").fit is Fit.APPROXIMATE


def test_a_higher_floor_is_no_exact_conversion() -> None:
    assert "log_floor = 0.001 (voice: 1e-05)" in refusal({"log_floor": 1e-3})


def test_z_scores_without_statistics_are_refused() -> None:
    said = refusal({"preset": "espnet", "allow_approximate": True})
    assert "scale" in said and "offset" in said and "--statistics" in said


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"preset": "macha"}, "did you mean matcha"),
        ({"preset": 7}, "allowed: a name"),
        ({"bits": 16}, "unknown mel format key 'bits'; known: preset, rate_hz"),
        ({"log": "log2"}, "log is 'log2'; allowed: ln or log10 or db"),
        ({"log": 10}, "log is 10"),
        ({"scale": [1.0, 2.0]}, "scale has 2 numbers; there are 80 bands"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": []}, "scale is []"),
        ({"offset": "high"}, "offset is 'high'"),
        ({"n_mels": 10**9}, "n_mels is 1000000000; allowed: an integer, 1..512"),
        ({"n_fft": True}, "n_fft is True"),
        ({"fmin_hz": 9000}, "fmin_hz 9000 and fmax_hz 8000"),
        ({"fmax_hz": 20000}, "11025, half of rate_hz"),
        ({"win": 2048}, "win 2048; allowed: at most n_fft, 1024"),
        ({"strict": 1}, "strict is 1; allowed: true or false"),
        ({"padding": None}, "padding is None"),
    ],
)
def test_a_bad_statement_is_refused_in_words(stated: dict[str, Any], words: str) -> None:
    assert words in refusal(stated)


def test_nothing_stated_is_the_voices_own() -> None:
    statement = read_statement({}, VOICE)
    assert statement.mels == VOICE and require_usable(statement, VOICE, "glow").fit is Fit.EXACT


def test_what_is_stated_beside_a_preset_overrides_it() -> None:
    assert read_statement({"preset": "coqui-db", "fmax_hz": 8000}, VOICE).mels.fmax_hz == 8000


def test_every_preset_can_be_stated_and_judged() -> None:
    for name in PRESETS:
        mels = preset_for(name, VOICE)
        assert read_statement(mels.stated(), VOICE).mels == mels
        verdict = compare(mels, VOICE)
        assert (verdict.fit is Fit.EXACT) == (not verdict.differing) and (verdict.cost_db > 0) == (
            verdict.fit is Fit.APPROXIMATE
        )


def test_a_preset_of_any_voice_takes_the_voices_bands() -> None:
    voice = MelDescription(rate_hz=24000, n_fft=1920, win=1920, hop=480)
    assert compare(preset_for("log10", voice), voice).fit is Fit.EXACT
    assert compare(preset_for("cosyvoice2", voice), voice).fit is Fit.EXACT
