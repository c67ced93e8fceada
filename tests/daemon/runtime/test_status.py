"""Status lines between a role and the supervisor."""

import pytest

from glowd.daemon.runtime.status import (
    Alive,
    Applied,
    Failed,
    NewLevel,
    News,
    NewSettings,
    Nodes,
    Ready,
    Released,
    RoleState,
    Status,
    encode,
    encode_news,
    parse,
    parse_news,
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Ready({"device": "pulse"}), b'{"ready": {"device": "pulse"}}\n'),
        (Alive(), b'{"alive": 1}\n'),
        (Alive("engine glow stands still"), b'{"alive": 1, "stall": "engine glow stands still"}\n'),
        (Applied(3), b'{"applied": 3}\n'),
        (Released("engine:glow"), b'{"released": "engine:glow"}\n'),
        (Nodes({"3f": {"state": "alive"}}), b'{"nodes": {"3f": {"state": "alive"}}}\n'),
        (Failed("no\ndevice"), b'{"failed": "no\\ndevice"}\n'),
        (Failed("no rate", settings=True), b'{"failed": "no rate", "settings": true}\n'),
    ],
)
def test_status_round_trip_is_one_json_line(status: Status, line: bytes) -> None:
    assert encode(status) == line and parse(line) == status


@pytest.mark.parametrize("line", [b"", b"hm\n", b"[1]\n", b"{}\n", b'{"ready": 1}\n', b"\xff\n"])
def test_other_lines_are_no_status(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    "news",
    [
        RoleState("engine:glow", "away", "out of\nmemory"),
        NewSettings(3, '{"a": "\n"}'),
        NewLevel("debug"),
        Nodes({"3f": {}}),
    ],
)
def test_news_round_trip_is_one_json_line(news: News) -> None:
    assert encode_news(news).count(b"\n") == 1 and parse_news(encode_news(news)) == news


@pytest.mark.parametrize("line", [b"", b"hm\n", b"[1]\n", b"{}\n", b'{"role": 1, "state": "", "reason": ""}\n'])
def test_other_lines_are_no_news(line: bytes) -> None:
    assert parse_news(line) is None
