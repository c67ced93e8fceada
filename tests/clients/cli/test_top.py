"""What is published, as glowctl top reads it."""

import msgpack
import pytest

from glowd.clients import errors
from glowd.clients.cli import top


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"a": 1}), b"\x81\xa1\xff\x01"])
def test_what_is_no_telemetry_is_said(data: bytes) -> None:
    with pytest.raises(errors.ProtocolError, match="not glowd's telemetry"):
        top.unpack(data)
