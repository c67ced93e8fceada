"""A client states its mels: they are converted, warned of, or refused, for that stream only."""

from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.daemon import ipc, wire
from glowd.daemon.wire import Code, WarningCode
from glowd.flow.mel import log_mel
from tests.daemon.gateway.router_rig import BINS, Hall
from tests.flow.mel_formats.conftest import SENTENCE

LOG10 = np.log(10)


@pytest.fixture(scope="module")
def sentence() -> Any:
    samples, _ = soundfile.read(SENTENCE, dtype="float32")
    return log_mel(samples)[:172]


@pytest.fixture
def hall() -> Hall:
    """A hall with a client of version 2, `new`, and one of version 1, `old`."""
    hall = Hall()
    for who, version in ((b"new", 2), (b"old", 1)):
        (welcome,) = hall.say(who, wire.Hello(who.decode(), max_version=version))
        assert isinstance(welcome, wire.Welcome) and welcome.version == version
    hall.open(b"new", "s", "null", format={})
    return hall


def send(hall: Hall, stream: str, mel: Any, who: bytes = b"new") -> list[wire.Message]:
    """All frames, in messages of 43; what the client is told."""
    pieces = [mel[at : at + 43] for at in range(0, len(mel), 43)]
    messages = [wire.mel_message(stream, 0, seq, 43 * seq, piece) for seq, piece in enumerate(pieces)]
    return hall.say(who, *messages)


def rendered(hall: Hall) -> Any:
    """What the engine was given."""
    return np.concatenate([message.mel for message in hall.to_engine if isinstance(message, ipc.Frames)])


def warnings(messages: list[wire.Message]) -> list[wire.Warning]:
    return [message for message in messages if isinstance(message, wire.Warning)]


def test_frames_reach_the_engine_converted(hall: Hall, sentence: Any) -> None:
    hall.open(b"new", "t", "null", format={"preset": "log10"})
    assert warnings(send(hall, "t", sentence / LOG10)) == []
    np.testing.assert_allclose(rendered(hall), sentence, atol=1e-5)


def test_statistics_come_as_lists(hall: Hall, sentence: Any) -> None:
    mean, deviation = sentence.mean(axis=0), sentence.std(axis=0)
    hall.open(b"new", "t", "null", format={"scale": deviation.tolist(), "offset": mean.tolist()})
    send(hall, "t", (sentence - mean) / deviation)
    np.testing.assert_allclose(rendered(hall), sentence, atol=1e-4)


def test_values_beyond_20_are_taken_where_they_are_stated(hall: Hall, sentence: Any) -> None:
    hall.open(b"new", "t", "null", format={"preset": "db"})
    assert warnings(send(hall, "t", sentence * 20 / LOG10)) == []
    np.testing.assert_allclose(rendered(hall), sentence, atol=1e-4)


def test_values_beyond_20_are_refused_with_frame_and_value(hall: Hall, sentence: Any) -> None:
    mel = sentence[:8] * 20 / LOG10
    error = hall.refused(b"new", wire.mel_message("s", 0, 0, 0, mel))
    assert error.code == Code.OUT_OF_RANGE and error.expected_frame == 0
    assert "frame 0 holds -" in error.text and "look like dB" in error.text and "-20..20" in error.text


def test_an_implausible_mel_is_warned_of_once(hall: Hall, sentence: Any) -> None:
    (warning,) = warnings(send(hall, "s", sentence / LOG10))
    assert warning.code == WarningCode.MEL_SCALE and warning.name == "MEL_SCALE"
    assert (warning.stream, warning.generation, warning.first_frame) == ("s", 0, 0) and "log10" in warning.text


def test_a_short_utterance_is_judged_at_its_end(hall: Hall, sentence: Any) -> None:
    unit = np.clip((sentence[:40] + 11.5) / 14, 0, 1)
    assert warnings(send(hall, "s", unit)) == []
    assert warnings(hall.say(b"new", wire.End("s", 0, 40)))[0].code == WarningCode.MEL_SCALE


def test_padding_is_warned_of_with_its_place(hall: Hall, sentence: Any) -> None:
    padded = np.concatenate([sentence[:100], np.zeros((20, BINS), np.float32)])
    (warning,) = warnings(send(hall, "s", padded))
    assert (warning.code, warning.first_frame) == (WarningCode.MEL_PADDING, 100)


def test_a_client_of_version_1_is_sent_no_warning(hall: Hall, sentence: Any) -> None:
    hall.open(b"old", "o", "null")
    answers = send(hall, "o", sentence / LOG10, b"old")
    assert warnings(answers) == [] and len(rendered(hall)) == len(sentence)


def test_a_strict_stream_fails_by_what_others_are_warned_of(hall: Hall, sentence: Any) -> None:
    hall.open(b"new", "t", "null", format={"strict": True})
    errors = [message for message in send(hall, "t", sentence / LOG10) if isinstance(message, wire.Error)]
    assert errors[0].code == Code.UNLIKELY_MEL and errors[0].fatal and "log10" in errors[0].text
    send(hall, "s", sentence)
    assert hall.desk.streams.sessions["s"].generation.frames_in == len(sentence), "the other stream goes on"


def test_a_strict_stream_speaks_what_is_plausible(hall: Hall, sentence: Any) -> None:
    hall.open(b"new", "t", "null", format={"strict": True})
    assert not [message for message in send(hall, "t", sentence) if isinstance(message, wire.Error | wire.Warning)]


def test_other_bands_are_converted_at_a_cost_that_is_told(hall: Hall) -> None:
    asked = wire.Open("t", sinks=["null"], format={"preset": "indextts2", "allow_approximate": True})
    opened, warning = hall.say(b"new", asked)
    assert isinstance(opened, wire.Opened) and isinstance(warning, wire.Warning)
    assert warning.code == WarningCode.MEL_APPROXIMATE and "dB" in warning.text and "fmax_hz" in warning.text


def test_a_format_with_more_bands_has_its_own_width(hall: Hall) -> None:
    stated = {"n_mels": 100, "fmax_hz": 11025, "allow_approximate": True}
    hall.say(b"new", wire.Open("t", sinks=["null"], format=stated))
    send(hall, "t", np.full((43, 100), -5, np.float32) + np.linspace(0, -3, 100, dtype=np.float32))
    assert rendered(hall).shape == (43, BINS)
    error = hall.refused(b"new", wire.mel_message("t", 0, 1, 43, np.full((4, BINS), -5, np.float32)))
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
def test_what_cannot_be_converted_is_refused(hall: Hall, stated: dict[str, Any], words: str) -> None:
    error = hall.refused(b"new", wire.Open("t", sinks=["null"], format=stated), fatal=True)
    assert error.code == Code.WRONG_FORMAT and words in error.text
    assert set(hall.desk.streams.sessions) == {"s"}
