"""Status lines between a role and the supervisor."""

import pytest

from glowd.daemon.runtime.status import Alive, Failed, Ready, RoleState, Status, encode, encode_news, parse, parse_news


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Ready({"device": "pulse"}), b'{"ready": {"device": "pulse"}}\n'),
        (Alive(), b'{"alive": 1}\n'),
        (Failed("no\ndevice"), b'{"failed": "no\\ndevice"}\n'),
        (Failed("no rate", settings=True), b'{"failed": "no rate", "settings": true}\n'),
    ],
)
def test_status_round_trip_is_one_json_line(status: Status, line: bytes) -> None:
    assert encode(status) == line and parse(line) == status


@pytest.mark.parametrize("line", [b"", b"hm\n", b"[1]\n", b"{}\n", b'{"ready": 1}\n', b"\xff\n"])
def test_other_lines_are_no_status(line: bytes) -> None:
    assert parse(line) is None


def test_news_round_trip_is_one_json_line() -> None:
    news = RoleState("engine:glow", "away", "out of\nmemory")
    assert encode_news(news).count(b"\n") == 1 and parse_news(encode_news(news)) == news


@pytest.mark.parametrize("line", [b"", b"hm\n", b"[1]\n", b"{}\n", b'{"role": 1, "state": "", "reason": ""}\n'])
def test_other_lines_are_no_news(line: bytes) -> None:
    assert parse_news(line) is None
