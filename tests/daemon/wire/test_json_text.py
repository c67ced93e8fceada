"""JSON of others: read, or refused with ValueError."""

import pytest

from glowd.daemon.wire.json_text import read_json


def test_json_is_read_from_text_and_bytes() -> None:
    assert read_json('{"a": [1, "\\u00e9"]}') == read_json('{"a": [1, "é"]}'.encode()) == {"a": [1, "é"]}


BAD = (b"[" * 100_000, b'{"a":' * 5000, b'"\\ud800"', b"\xff\xfe{}", b"", b"1" * 5000, "{", b'{"\\udfff": 1}')


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_cannot_be_used_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        read_json(text)
