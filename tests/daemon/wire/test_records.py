"""Records: maps become typed objects and back, and any map can be read as a snapshot."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given

from glowd.daemon import ipc
from glowd.daemon.wire import (
    Capacity,
    Code,
    GatewayRole,
    Role,
    Snapshot,
    SpeakerRole,
    Stages,
    StageTimes,
    VoiceInfo,
    WireError,
)
from glowd.daemon.wire.records import INLINE, Record
from tests.daemon.messages import VOICE, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Record):
    """Keys that stand beside those of the outer record."""

    level: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Record):
    """One field of each kind."""

    name: str
    share: float | None = None
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner, metadata=INLINE)
    by_name: dict[str, Inner] = field(default_factory=dict)


FULL = Outer(name="a", share=0.5, names=["x"], inner=Inner(level=3), by_name={"b": Inner(level=1)})
FULL_MAP = {"name": "a", "share": 0.5, "names": ["x"], "level": 3, "by_name": {"b": {"level": 1}}}


def test_record_to_map_keeps_order_and_inlines() -> None:
    assert list(FULL.to_map().items()) == list(FULL_MAP.items())


def test_record_from_map_reads_what_to_map_wrote() -> None:
    assert Outer.from_map(FULL_MAP | {"unknown": 1}) == FULL


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [("share", "x", None), ("share", True, None), ("names", [1], []), ("level", 0.5, 3), ("by_name", 7, {})],
)
def test_record_value_of_other_type_takes_default(key: str, value: object, read: object) -> None:
    found = Outer.from_map(FULL_MAP | {key: value})
    assert getattr(found, key, found.inner.level) == (None if key == "level" else read)


def test_record_float_accepts_integer() -> None:
    assert Outer.from_map({"name": "a", "share": 1}).share == 1


def test_record_unreadable_entry_is_left_out() -> None:
    assert Outer.from_map({"name": "a", "by_name": {"b": 3, "c": {"level": 2}}}).by_name == {"c": Inner(level=2)}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({}, "Outer.name is missing; expected str"),
        ({"name": 3}, "Outer.name is 3; expected str"),
        ([], "Outer is read from a map; this is list"),
    ],
)
def test_record_without_required_field_is_refused(source: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Outer.from_map(source)


@given(plain)
def test_snapshot_reads_any_map(value: Any) -> None:
    Snapshot.from_map({"roles": value, "voices": {"glow": value}, "streams": {"s": value, "t": {"stages": value}}})


def test_snapshot_tells_roles_apart_by_their_keys() -> None:
    roles = {"a": {"alive": True}, "b": {"turn_ms": None}, "c": {"why_not": "no device"}}
    kinds = [type(role) for role in Snapshot.from_map({"roles": roles}).roles.values()]
    assert kinds == [Role, GatewayRole, SpeakerRole]


def test_stages_not_measured_are_none_on_the_wire() -> None:
    stages = Stages(times={"wait": StageTimes(mean_ms=2.0)}, mean_sum_ms=2.0)
    written = stages.to_map()
    assert [name for name, value in written.items() if value is not None] == ["wait", "total"]
    assert Stages.from_map(written) == stages


def test_ready_with_incomplete_voice_is_refused() -> None:
    ready = ipc.Ready("glow", VoiceInfo.from_map(VOICE | {"history_frames": 4}), 1)
    head = ipc.encode(ready)[0].replace(b"\xa3hop", b"\xa3hup")
    with pytest.raises(WireError) as caught:
        ipc.decode([head])
    assert caught.value.code is Code.BAD_FIELD and "a map with name, rate_hz, hop, format" in caught.value.text


def test_load_is_read_as_the_report_of_its_process() -> None:
    for report in (ipc.EngineLoad(streams=1, busy=0.5, rss_bytes=9), ipc.SpeakerLoad(limited_samples=0, rss_bytes=9)):
        (head,) = ipc.encode(ipc.Load(report))
        assert ipc.decode([head]) == ipc.Load(report)
        found = ipc.decode([head])
        assert isinstance(found, ipc.Load) and type(found.stats) is type(report)


def test_capacity_of_a_configured_voice_has_no_times() -> None:
    assert Capacity(streams=2, measured=False).to_map() == {
        "streams": 2, "measured": False, "share": None, "chunk_ms": None, "alone_ms": None, "round_ms": None,
    }  # fmt: skip
