"""Published snapshots, as glowctl top reads and shows them."""

import msgpack
import pytest

from glowd.clients import errors
from glowd.clients.cli import tables, top
from glowd.daemon import wire
from tests.harness.snapshots import SNAPSHOT


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"a": 1}), b"\x81\xa1\xff\x01"])
def test_other_data_than_telemetry_raises(data: bytes) -> None:
    with pytest.raises(errors.ProtocolError, match="does not publish glowd's telemetry"):
        top.unpack(data)


def test_styled_table_has_the_text_of_the_plain_one() -> None:
    for table in tables.tables(wire.Snapshot.from_map(SNAPSHOT)):
        assert top.styled(table).plain.splitlines() == tables.layout(table)[1:]
