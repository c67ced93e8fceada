"""What is heard of an utterance is judged to the sample."""

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.daemon.wire.codec import to_s16
from tests.soak import utterances
from tests.soak.bank import stream_name
from tests.soak.listening import end_wrong

EXPECTED = np.linspace(-0.5, 0.5, 1024, dtype=np.float32)


def test_whole_utterance_is_right_and_each_flaw_is_found() -> None:
    assert utterances.played_wrong(1024, EXPECTED, EXPECTED) == "" == utterances.played_wrong(1024, None, EXPECTED)
    assert utterances.played_wrong(1023, None, EXPECTED) == "played 1023 samples of 1024"
    assert utterances.played_wrong(1024, EXPECTED[:-1], EXPECTED) == "heard 1023 samples of 1024"
    changed = EXPECTED.copy()
    changed[[7, 9]] += 1e-6
    assert utterances.played_wrong(1024, changed, EXPECTED) == "2 samples differ, the first is 7"


def test_flush_ends_within_what_was_sent_and_is_right() -> None:
    assert (
        utterances.flushed_wrong(511, EXPECTED[:512], EXPECTED, 2)
        == ""
        == utterances.flushed_wrong(-1, None, EXPECTED, 1)
    )
    assert "is 512, of 512" in utterances.flushed_wrong(512, None, EXPECTED, 2)
    assert "the first is 0" in utterances.flushed_wrong(511, EXPECTED[1:513], EXPECTED, 2)


@pytest.mark.parametrize(("last", "is_right"), [(98, False), (99, True), (15_599, True), (15_600, False)])
def test_flush_of_a_device_ends_where_the_device_is(last: int, is_right: bool) -> None:
    assert (utterances.place_wrong(last, 100, 1.0 - utterances.FLUSH_SLACK_S, 15_499) == "") is is_right


def test_file_has_every_sample() -> None:
    assert utterances.file_wrong(to_s16(EXPECTED), EXPECTED) == ""
    assert "1023 samples of 1024" in utterances.file_wrong(to_s16(EXPECTED[1:]), EXPECTED)
    assert "the first is 0" in utterances.file_wrong(to_s16(EXPECTED[::-1]), EXPECTED)


def test_flush_without_a_device_ends_with_the_last_sample_made() -> None:
    socket, device = stream_name("glow", 0, 6, 3), stream_name("glow", 0, 0, 3)
    for stream, heard, last, is_right in (
        (socket, 100, 99, True), (socket, 101, 99, False), (device, 101, 99, True), (device, 99, 99, False)
    ):  # fmt: skip
        flushed = wire.Flushed(stream, 0, last, 0)
        assert (end_wrong(stream, heard, flushed) == "") is is_right
