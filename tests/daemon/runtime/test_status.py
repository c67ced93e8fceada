"""Status lines between a role and the supervisor."""

import pytest

from glowd.daemon.runtime.status import Alive, Failed, Ready, Status, encode, parse


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Ready({"device": "pulse"}), b'{"ready": {"device": "pulse"}}\n'),
        (Alive(), b'{"alive": 1}\n'),
        (Failed("no\ndevice"), b'{"failed": "no\\ndevice"}\n'),
    ],
)
def test_status_round_trip_is_one_json_line(status: Status, line: bytes) -> None:
    assert encode(status) == line and parse(line) == status


@pytest.mark.parametrize("line", [b"", b"hm\n", b"[1]\n", b"{}\n", b'{"ready": 1}\n', b"\xff\n"])
def test_other_lines_are_no_status(line: bytes) -> None:
    assert parse(line) is None
