"""A client states its mels: they are converted, warned of, or refused, for that stream only."""

from typing import Any

import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code, WarningCode
from tests.harness.mels import speech
from tests.harness.router import BINS, RouterHarness

LOG10 = np.log(10)


@pytest.fixture(scope="module")
def sentence() -> Any:
    return speech()[:172]


@pytest.fixture
def harness() -> RouterHarness:
    """A router with a client of version 2, `new`, and one of version 1, `old`."""
    harness = RouterHarness()
    for who, version in ((b"new", 2), (b"old", 1)):
        (welcome,) = harness.send(who, wire.Hello(who.decode(), max_version=version))
        assert isinstance(welcome, wire.Welcome) and welcome.version == version
    harness.open(b"new", "s", "null", format={})
    return harness


def send(harness: RouterHarness, stream: str, mel: Any, who: bytes = b"new") -> list[wire.Message]:
    """All frames, in messages of 43; what the client is told."""
    pieces = [mel[at : at + 43] for at in range(0, len(mel), 43)]
    messages = [wire.mel_message(stream, 0, seq, 43 * seq, piece) for seq, piece in enumerate(pieces)]
    return harness.send(who, *messages)


def rendered(harness: RouterHarness) -> Any:
    """What the engine was given."""
    return np.concatenate([message.mel for message in harness.to_engine if isinstance(message, ipc.Frames)])


def warnings(messages: list[wire.Message]) -> list[wire.Warning]:
    return [message for message in messages if isinstance(message, wire.Warning)]


def test_frames_reach_the_engine_converted(harness: RouterHarness, sentence: Any) -> None:
    harness.open(b"new", "t", "null", format={"preset": "log10"})
    assert warnings(send(harness, "t", sentence / LOG10)) == []
    np.testing.assert_allclose(rendered(harness), sentence, atol=1e-5)


def test_statistics_come_as_lists(harness: RouterHarness, sentence: Any) -> None:
    mean, deviation = sentence.mean(axis=0), sentence.std(axis=0)
    harness.open(b"new", "t", "null", format={"scale": deviation.tolist(), "offset": mean.tolist()})
    send(harness, "t", (sentence - mean) / deviation)
    np.testing.assert_allclose(rendered(harness), sentence, atol=1e-4)


def test_values_beyond_20_are_taken_where_they_are_stated(harness: RouterHarness, sentence: Any) -> None:
    harness.open(b"new", "t", "null", format={"preset": "db"})
    assert warnings(send(harness, "t", sentence * 20 / LOG10)) == []
    np.testing.assert_allclose(rendered(harness), sentence, atol=1e-4)


def test_values_beyond_20_are_refused_with_frame_and_value(harness: RouterHarness, sentence: Any) -> None:
    mel = sentence[:8] * 20 / LOG10
    error = harness.refused(b"new", wire.mel_message("s", 0, 0, 0, mel))
    assert error.code == Code.OUT_OF_RANGE and error.expected_frame == 0
    assert "frame 0 holds -" in error.text and "look like dB" in error.text and "-20..20" in error.text


def test_an_implausible_mel_is_warned_of_once(harness: RouterHarness, sentence: Any) -> None:
    (warning,) = warnings(send(harness, "s", sentence / LOG10))
    assert warning.code == WarningCode.MEL_SCALE and warning.name == "MEL_SCALE"
    assert (warning.stream, warning.generation, warning.first_frame) == ("s", 0, 0) and "log10" in warning.text


def test_a_short_utterance_is_judged_at_its_end(harness: RouterHarness, sentence: Any) -> None:
    unit = np.clip((sentence[:40] + 11.5) / 14, 0, 1)
    assert warnings(send(harness, "s", unit)) == []
    assert warnings(harness.send(b"new", wire.End("s", 0, 40)))[0].code == WarningCode.MEL_SCALE


def test_padding_is_warned_of_with_its_place(harness: RouterHarness, sentence: Any) -> None:
    padded = np.concatenate([sentence[:100], np.zeros((20, BINS), np.float32)])
    (warning,) = warnings(send(harness, "s", padded))
    assert (warning.code, warning.first_frame) == (WarningCode.MEL_PADDING, 100)


def test_a_client_of_version_1_is_sent_no_warning(harness: RouterHarness, sentence: Any) -> None:
    harness.open(b"old", "o", "null")
    answers = send(harness, "o", sentence / LOG10, b"old")
    assert warnings(answers) == [] and len(rendered(harness)) == len(sentence)


def test_a_strict_stream_fails_by_what_others_are_warned_of(harness: RouterHarness, sentence: Any) -> None:
    harness.open(b"new", "t", "null", format={"strict": True})
    errors = [message for message in send(harness, "t", sentence / LOG10) if isinstance(message, wire.Error)]
    assert errors[0].code == Code.UNLIKELY_MEL and errors[0].fatal and "log10" in errors[0].text
    send(harness, "s", sentence)
    assert harness.session("s").state.utterance.frames_in == len(sentence), "the other stream goes on"


def test_a_strict_stream_speaks_what_is_plausible(harness: RouterHarness, sentence: Any) -> None:
    harness.open(b"new", "t", "null", format={"strict": True})
    assert not [message for message in send(harness, "t", sentence) if isinstance(message, wire.Error | wire.Warning)]


def test_other_bands_are_converted_at_a_cost_that_is_told(harness: RouterHarness) -> None:
    asked = wire.Open("t", sinks=["null"], format={"preset": "indextts2", "allow_approximate": True})
    opened, warning = harness.send(b"new", asked)
    assert isinstance(opened, wire.Opened) and isinstance(warning, wire.Warning)
    assert warning.code == WarningCode.MEL_APPROXIMATE and "dB" in warning.text and "fmax_hz" in warning.text


def test_a_format_with_more_bands_has_its_own_width(harness: RouterHarness) -> None:
    stated = {"n_mels": 100, "fmax_hz": 11025, "allow_approximate": True}
    harness.send(b"new", wire.Open("t", sinks=["null"], format=stated))
    send(harness, "t", np.full((43, 100), -5, np.float32) + np.linspace(0, -3, 100, dtype=np.float32))
    assert rendered(harness).shape == (43, BINS)
    error = harness.refused(b"new", wire.mel_message("t", 0, 1, 43, np.full((4, BINS), -5, np.float32)))
    assert error.code == Code.BAD_SHAPE and "100" in error.text


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"preset": "cosyvoice2"}, "rate_hz = 24000 (voice: 22050)"),
        ({"preset": "indextts2"}, "allow_approximate"),
        ({"preset": "espnet"}, "scale"),
        ({"preset": "nobody"}, "unknown mel format 'nobody'"),
        ({"scale": [1.0]}, "there are 80 bands"),
        ({"bits": 16}, "unknown mel format key 'bits'"),
    ],
)
def test_what_cannot_be_converted_is_refused(harness: RouterHarness, stated: dict[str, Any], words: str) -> None:
    error = harness.refused(b"new", wire.Open("t", sinks=["null"], format=stated), fatal=True)
    assert error.code == Code.WRONG_FORMAT and words in error.text
    assert harness.stream_names == {"s"}
