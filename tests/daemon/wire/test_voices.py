"""A voice that clients could not be told of is refused, with the key, the value and what is allowed."""

import dataclasses
import math
from typing import Any

import pytest

from glowd.daemon import wire
from glowd.daemon.wire.telemetry import VoiceInfo
from glowd.daemon.wire.voices import check_voice

GOOD = VoiceInfo(
    name="glow", rate_hz=22050, hop=256, format={"n_mels": 80, "fmax_hz": 8000.0}, look_ahead_frames=1, latency_ms=12.0,
    whole_utterance=False, default=True, history_frames=30,
)  # fmt: skip


def test_ordinary_voice_is_accepted() -> None:
    check_voice(GOOD)
    check_voice(dataclasses.replace(GOOD, rate_hz=44100, hop=1, history_frames=2**31 - 1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rate_hz": 10**9}, "rate_hz of voice glow is 1000000000; allowed: an integer, 1..384000"),
        ({"rate_hz": 0}, "rate_hz of voice glow is 0"),
        ({"hop": 10**6}, "hop of voice glow is 1000000; allowed: an integer, 1..65536"),
        ({"format": {"n_mels": 4000}}, "format.n_mels of voice glow is 4000; allowed: an integer, 1..1024"),
        ({"format": {}}, "format.n_mels of voice glow is None"),
        ({"look_ahead_frames": -1}, "look_ahead_frames of voice glow is -1"),
        ({"history_frames": 2**60}, "history_frames of voice glow is 1152921504606846976"),
        ({"latency_ms": math.nan}, "has a number that is not finite"),
        ({"format": {"n_mels": 80, "fmax_hz": math.inf}}, "has a number that is not finite"),
    ],
)
def test_voice_that_no_message_can_carry_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace(".", r"\.")):
        check_voice(dataclasses.replace(GOOD, **change))


@pytest.mark.parametrize("change", [{"rate_hz": 10**9}, {"hop": 10**6}])
def test_what_is_refused_could_not_be_sent(change: dict[str, Any]) -> None:
    voice = dataclasses.replace(GOOD, **change)
    with pytest.raises(wire.LocalError):
        wire.encode(wire.Opened("s", "glow", voice.rate_hz, voice.hop, 0))
