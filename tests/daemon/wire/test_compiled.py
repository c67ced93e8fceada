"""The functions that are made of a message's declaration hold to it, field by field."""

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glowd.daemon import ipc, wire
from glowd.daemon.wire import LocalError, WireError
from glowd.daemon.wire.codec import Codec
from glowd.daemon.wire.fields import Message, array, integer, mapping, message
from tests.daemon.messages import messages

VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=70)
    | st.lists(st.text(max_size=3), max_size=3) | st.dictionaries(st.text(max_size=3), st.integers(-3, 9), max_size=3)
)  # fmt: skip


@message
class Sample(Message):
    """A message with every kind of default."""

    first: int = integer()
    found: dict[str, Any] = mapping(default={})
    later: int = integer(default=7, added=True)
    payload: np.ndarray[Any, Any] = array("first", default=None)


CODEC = Codec([Sample])


@given(messages(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_value_is_refused_if_its_field_refuses_it(msg: Message, data: st.DataObject) -> None:
    assume(msg.FIELDS)
    key, value = data.draw(st.sampled_from([*msg.FIELDS])), data.draw(VALUES)
    header = {"type": msg.TYPE, **msg.header(), key: value}
    try:
        wire.decode([msgpack.packb(header), *wire.encode(msg)[1:]])
        told = ""
    except WireError as fault:
        told = fault.text
    assert told.startswith(f"{msg.TYPE}.{key} is ") is not msg.FIELDS[key].accepts(value)


@pytest.mark.parametrize("left_out", ["found", "later"])
def test_a_field_that_is_left_out_has_its_default(left_out: str) -> None:
    parts = [msgpack.packb({"type": "sample", "first": 0, "found": {}, "later": 7}), b""]
    short = [msgpack.packb({k: v for k, v in msgpack.unpackb(parts[0]).items() if k != left_out}), b""]
    assert CODEC.decode(short) == CODEC.decode(parts)


def test_a_changeable_default_belongs_to_one_message() -> None:
    parts = [msgpack.packb({"type": "sample", "first": 0}), b""]
    one, other = CODEC.decode(parts), CODEC.decode(parts)
    assert isinstance(one, Sample) and isinstance(other, Sample)
    one.found["here"] = 1
    assert other.found == {}


def test_an_added_field_is_sent_only_if_it_says_something() -> None:
    for later, sent in ((7, False), (8, True)):
        header = msgpack.unpackb(CODEC.encode(Sample(0, later=later))[0])
        assert ("later" in header) is sent


def test_a_message_that_cannot_be_sent_leaves_no_trace() -> None:
    before = ipc.encode(ipc.Finish(key=5))
    with pytest.raises(LocalError, match=r"cannot send finish: .*finish\.key is -1; allowed: an integer"):
        ipc.encode(ipc.Finish(key=-1))
    with pytest.raises(LocalError, match="cannot send sample"):
        CODEC.encode(Sample(0, found={"a": 2**70}))
    assert ipc.encode(ipc.Finish(key=5)) == before
