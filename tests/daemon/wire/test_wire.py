"""The wire protocol: golden bytes, round trips, and refusal of everything else.

`python -m tests.daemon.wire.test_wire` writes golden bytes for messages that have none yet; existing ones never change.
"""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glowd.daemon import wire
from glowd.daemon.wire import Code, Limits, LocalError, WireError
from glowd.daemon.wire.codec import Codec
from glowd.daemon.wire.fields import Message, array, integer, message
from tests.daemon.messages import ADDED, EXAMPLES, F16_MEL, MEL_3, messages

HERE = Path(__file__).parents[1]
GOLDEN = HERE / "golden"
PROTOCOL = Path(wire.__file__).parents[1] / "PROTOCOL.md"
ALL_TYPES = wire.CLIENT_MESSAGES + wire.DAEMON_MESSAGES
GOLDEN_CASES = [*((m.TYPE, m) for m in EXAMPLES), ("mel_f16", F16_MEL), *ADDED.items()]
MEL = wire.mel_message("s1", 0, 0, 0, MEL_3)


def golden_text(msg: Message) -> str:
    """A message as text: one line of hex for each part."""
    return "".join(part.hex() + "\n" for part in wire.encode(msg))


def raw(**header: Any) -> list[bytes]:
    return [msgpack.packb(header)]


def raw_mel(data: bytes | None = None, **changes: Any) -> list[bytes]:
    """A mel with any header and any payload, as a hostile peer may send it."""
    header = {"type": "mel", "stream": "s1", "generation": 0, "seq": 0, "first_frame": 0, "frames": 3, **changes}
    return [msgpack.packb(header), MEL_3.tobytes() if data is None else data]


def refusal(parts: list[bytes], limits: Limits | None = None) -> WireError:
    with pytest.raises(WireError) as caught:
        wire.decode(parts, limits or Limits())
    return caught.value


def test_every_message_has_an_example() -> None:
    assert {type(m) for m in EXAMPLES} == set(ALL_TYPES)


@pytest.mark.parametrize(("stem", "msg"), GOLDEN_CASES, ids=[stem for stem, _ in GOLDEN_CASES])
def test_golden_bytes_never_change(stem: str, msg: Message) -> None:
    golden = (GOLDEN / f"{stem}.hex").read_text()
    assert golden_text(msg) == golden
    decoded = wire.decode([bytes.fromhex(line) for line in golden.splitlines()])
    assert decoded == msg if msg is not F16_MEL else decoded.header() == msg.header()


@given(messages())
@settings(max_examples=200, deadline=None)
def test_round_trip(msg: Message) -> None:
    assert wire.decode(wire.encode(msg), wire.CLIENT_LIMITS) == msg


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([b"\xc1"])
@example([b"\x91" * 5000])
@example([b"\x81\xa4type\xa3\xff\xfe\xfd"])
@example([b"\xd6\xff\x00\x00\x00\x00"])
@example([b"\x81\xa4type\xd6\xff\x00\x00\x00\x00"])
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_or_raise_wire_error(parts: list[bytes]) -> None:
    try:
        assert isinstance(wire.decode(parts), Message)
    except WireError as fault:
        assert isinstance(fault.code, Code) and fault.text


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_messages_decode_or_raise_wire_error(data: st.DataObject) -> None:
    msg = data.draw(messages())
    parts = [bytearray(part) for part in wire.encode(msg)]
    for _ in range(data.draw(st.integers(1, 4))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(wire.decode(parts), Message)
    except WireError as fault:
        assert fault.text


@given(st.dictionaries(st.sampled_from([*ALL_TYPES[2].FIELDS, "type", "extra"]), st.none() | st.text() | st.integers()
                       | st.binary() | st.floats() | st.lists(st.integers()) | st.just("mel")))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_header_decodes_or_raises_wire_error(header: dict[str, Any]) -> None:
    try:
        wire.decode([msgpack.packb({"type": "mel", **header}) if header.get("type") != -1 else b"", b""])
    except WireError as fault:
        assert fault.code in (Code.MALFORMED, Code.UNKNOWN_TYPE, Code.BAD_FIELD, Code.BAD_SHAPE, Code.TOO_LARGE)
    except (OverflowError, UnicodeEncodeError):
        pass  # msgpack cannot write this header in the first place


@pytest.mark.parametrize("msg", EXAMPLES, ids=lambda m: m.TYPE)
def test_truncated_message_is_refused(msg: Message) -> None:
    parts = wire.encode(msg)
    for cut in range(len(parts[0])):
        assert refusal([parts[0][:cut], *parts[1:]]).code == Code.MALFORMED
    if len(parts) == 2:
        assert refusal([parts[0], parts[1][:-1]]).code == Code.BAD_SHAPE
        assert refusal(parts[:1]).code == Code.MALFORMED


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ([], Code.MALFORMED, "without parts"),
        (raw(type="mel", stream="s1") * 3, Code.TOO_LARGE, "3 parts"),
        ([*raw(type="ping"), b"x"], Code.MALFORMED, "ping has 1 payload parts; expected 0"),
        (raw_mel()[:1], Code.MALFORMED, "mel has 0 payload parts; expected 1"),
        ([msgpack.packb([1, 2])], Code.MALFORMED, "not a map"),
        ([msgpack.packb({1: 2})], Code.MALFORMED, "map"),
        ([msgpack.packb({b"type": "ping"})], Code.MALFORMED, "limits"),
        ([b"\x82\xa4type\xa4ping\xa4type\xa4ping"], Code.MALFORMED, "twice"),
        ([b"\x81\xa4type\xa4pin\xff"], Code.MALFORMED, "utf-8"),
        ([*raw(type="ping", t=list(range(513)))], Code.MALFORMED, "limits"),
        (raw(type="ping", pad="x" * 9000), Code.TOO_LARGE, "header bytes"),
        (raw(type="ping", pad="x" * 3000), Code.MALFORMED, "limits"),
        (raw(type="ping", pad=b"x"), Code.MALFORMED, "limits"),
        (raw(), Code.UNKNOWN_TYPE, "None"),
        (raw(type="sing"), Code.UNKNOWN_TYPE, "'sing'"),
        (raw(type=["mel"]), Code.UNKNOWN_TYPE, "['mel']"),
        (raw(type=[["mel"]]), Code.UNKNOWN_TYPE, "a list"),
        (raw(type="pause"), Code.BAD_FIELD, "lacks stream"),
        (raw(type="pause", stream="a b"), Code.BAD_FIELD, "pause.stream is 'a b'"),
        (raw(type="pause", stream="x\n"), Code.BAD_FIELD, "pause.stream"),
        (raw(type="pause", stream=""), Code.BAD_FIELD, "pause.stream"),
        (raw(type="pause", stream="x" * 65), Code.BAD_FIELD, "1..64"),
        (raw(type="end", stream="s", generation=True, total_frames=0), Code.BAD_FIELD, "True"),
        (raw(type="end", stream="s", generation=0.0, total_frames=0), Code.BAD_FIELD, "0.0"),
        (raw(type="end", stream="s", generation=-1, total_frames=0), Code.BAD_FIELD, "-1"),
        (raw(type="end", stream="s", generation=2**31, total_frames=0), Code.BAD_FIELD, "2147483648"),
        (raw(type="gain", stream="s", gain_db=float("nan")), Code.BAD_FIELD, "nan"),
        (raw(type="gain", stream="s", gain_db="loud"), Code.BAD_FIELD, "'loud'"),
        (raw(type="open", stream="s", sinks=["file:../etc"]), Code.BAD_SINK, "open.sinks"),
        (raw(type="open", stream="s", sinks=["file:.."]), Code.BAD_SINK, "open.sinks"),
        (raw(type="open", stream="s", sinks=[]), Code.BAD_SINK, "1..8"),
        (raw(type="open", stream="s", sinks=[1]), Code.BAD_SINK, "[1]"),
        (raw(type="open", stream="s", sinks="device"), Code.BAD_SINK, "list"),
        (raw(type="open", stream="s", format={"a": {"b": [1]}}), Code.BAD_FIELD, "nested"),
        (raw(type="open", stream="s", format=[["a", 1]]), Code.BAD_FIELD, "map"),
        (raw(type="state", stream="", state="up", info={"x": float("nan")}), Code.BAD_FIELD, "map"),
        (raw_mel(dtype="f64"), Code.BAD_FIELD, "'f32' or 'f16'"),
        (raw_mel(dtype="f16"), Code.BAD_SHAPE, "480"),
        (raw_mel(frames=0, data=b""), Code.BAD_FIELD, "mel.frames"),
        (raw_mel(frames=4), Code.BAD_SHAPE, "1280"),
        (raw_mel(bins=79), Code.BAD_SHAPE, "948"),
        (raw_mel(frames=513), Code.TOO_LARGE, "at most 512"),
        (raw_mel(frames=60_000), Code.TOO_LARGE, "at most 512"),
        (raw_mel(data=b""), Code.BAD_SHAPE, "0 bytes"),
        (raw_mel(data=bytes(1 << 20)), Code.TOO_LARGE, "bytes"),
        (raw_mel(data=np.full((3, 80), np.nan, "<f4").tobytes()), Code.NOT_FINITE, "NaN"),
        (raw_mel(data=np.full((3, 80), -np.inf, "<f4").tobytes()), Code.NOT_FINITE, "Inf"),
        (raw_mel(data=np.full((3, 80), 1000.5, "<f4").tobytes()), Code.OUT_OF_RANGE, "-1000..1000"),
        (raw_mel(data=np.full((3, 80), np.inf, "<f2").tobytes(), dtype="f16"), Code.NOT_FINITE, "Inf"),
    ],
)
def test_hostile_message_is_refused_by_code(parts: list[bytes], code: Code, words: str) -> None:
    fault = refusal(parts)
    assert (fault.code, words in fault.text) == (code, True), fault
    assert len(fault.text) < 600


def test_refusal_names_stream_and_index() -> None:
    hurt = MEL_3.copy()
    hurt[2, 5] = np.nan
    fault = refusal(raw_mel(data=hurt.tobytes()))
    assert fault.stream == "s1" and "index 2" in fault.text
    assert refusal(raw_mel(stream="../x")).stream == ""
    error = wire.error_for(fault)
    assert (error.code, error.name, error.stream, error.fatal) == (302, "NOT_FINITE", "s1", False)
    assert wire.decode(wire.encode(error)) == error


@pytest.mark.parametrize(
    "piece", [b"\x80", b"\x90", b"\xdf\xff\xff\xff\xff", b"\x91", b"\xa0", b"\xdd\x7f\xff\xff\xff"]
)
def test_megabyte_of_empty_values_is_refused_quickly(piece: bytes) -> None:
    flood = b"\xdd\x00\x0f\xff\xff" + piece * (1_000_000 // len(piece))
    began_s = time.thread_time()  # of this thread alone, whatever else the machine does
    assert refusal([flood]).code == Code.TOO_LARGE
    assert refusal([flood[:8000]]).code == Code.MALFORMED
    assert refusal([flood], Limits(max_header_bytes=1 << 20)).code in (Code.MALFORMED, Code.TOO_LARGE)
    assert time.thread_time() - began_s < 0.05


def test_unknown_fields_are_ignored() -> None:
    parts = raw(type="ping", t_client_ns=3, mood={"deep": [1, None]})
    assert wire.decode(parts) == wire.Ping(3)


def test_missing_optional_fields_take_their_defaults() -> None:
    assert wire.decode(raw(type="open", stream="s")) == wire.Open("s", "", {}, ["device"], 0, 0.0, -1, -1.0)


def test_defaults_are_not_shared() -> None:
    assert wire.Open("a").sinks is not wire.Open("b").sinks


def test_limits_can_be_narrowed() -> None:
    assert refusal(wire.encode(MEL), Limits(max_chunk_frames=2)).code == Code.TOO_LARGE
    assert refusal(wire.encode(MEL), Limits(max_message_bytes=500)).code == Code.TOO_LARGE


def test_f16_payloads_arrive_as_float32() -> None:
    decoded = wire.decode(wire.encode(F16_MEL))
    assert isinstance(decoded, wire.Mel) and decoded.payload.dtype == np.float32
    np.testing.assert_array_equal(decoded.payload, MEL_3.astype(np.float16).astype(np.float32))


def test_error_code_is_a_number_on_the_wire() -> None:
    assert wire.decode(wire.encode(wire.Error(Code.GAP, "GAP", "x"))) == wire.Error(204, "GAP", "x")


def test_memoryviews_decode_like_bytes() -> None:
    assert wire.decode([memoryview(part) for part in wire.encode(MEL)]) == MEL


@pytest.mark.parametrize(
    ("msg", "words"),
    [
        (wire.Pause("a b"), "pause.stream"),
        (wire.Mel("s", 0, 0, 0, 3, payload=np.zeros((2, 80), np.float32)), "(2, 80)"),
        (wire.Mel("s", 0, 0, 0, 1, payload=np.full((1, 80), np.nan, np.float32)), "NaN"),
        (wire.State("", "up", {"x": object()}), "state.info"),
        (wire.Ping(2**63), "ping.t_client_ns"),
    ],
)
def test_invalid_message_of_ours_is_local_error(msg: Message, words: str) -> None:
    with pytest.raises(LocalError, match=re.escape(words)):
        wire.encode(msg)


def test_mel_message_needs_two_axes() -> None:
    with pytest.raises(LocalError, match="frames, bins"):
        wire.mel_message("s", 0, 0, 0, np.zeros(80, np.float32))


@message
class TwoWords(Message):
    """A message of another protocol."""

    key: int = integer()
    rows: int = integer()
    payload: wire.Array = array("rows", 2, default=None)


def test_codec_serves_other_protocols() -> None:
    codec = Codec([TwoWords])
    msg = TwoWords(1, 3, np.arange(6, dtype=np.float32).reshape(3, 2))
    assert TwoWords.TYPE == "two_words" and codec.decode(codec.encode(msg)) == msg
    with pytest.raises(LocalError, match="does not belong"):
        wire.encode(msg)
    with pytest.raises(WireError, match="UNKNOWN_TYPE"):
        wire.decode(codec.encode(msg))


def test_messages_compare_by_payload() -> None:
    assert wire.mel_message("s1", 0, 0, 0, MEL_3) == MEL
    assert wire.mel_message("s1", 0, 0, 0, MEL_3 + 1) != MEL
    assert wire.Pause("s") != wire.Resume("s")


def test_endpoints_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("GLOWD_RUN_DIR", "XDG_RUNTIME_DIR", "GLOWD_ENDPOINT", "GLOWD_TELEMETRY"):
        monkeypatch.delenv(key, raising=False)
    assert re.fullmatch(r"ipc:///tmp/glowd-\d+/glowd\.ipc", wire.default_endpoint())
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert wire.default_telemetry() == "ipc:///run/user/7/glowd/top.ipc"
    monkeypatch.setenv("GLOWD_RUN_DIR", "/srv/g")
    assert wire.default_endpoint() == "ipc:///srv/g/glowd.ipc"
    monkeypatch.setenv("GLOWD_ENDPOINT", "tcp://127.0.0.1:5")
    monkeypatch.setenv("GLOWD_TELEMETRY", "tcp://127.0.0.1:6")
    assert (wire.default_endpoint(), wire.default_telemetry()) == ("tcp://127.0.0.1:5", "tcp://127.0.0.1:6")


def protocol_section(title: str) -> str:
    """The text of PROTOCOL.md below the heading `### title`."""
    return PROTOCOL.read_text().split(f"\n### {title}\n")[1].split("\n#")[0]


def default_of(cls: type[Message], key: str) -> str:
    if key in cls.REQUIRED:
        return "required"
    item = next(item for item in dataclasses.fields(cls) if item.name == key)  # type: ignore[arg-type]
    value = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return f"`{json.dumps(value)}`"


@pytest.mark.parametrize("cls", ALL_TYPES, ids=lambda cls: cls.TYPE)
def test_protocol_document_has_every_field(cls: type[Message]) -> None:
    rows = [
        re.split(r"(?<!\\) \| ", line.strip("| "))
        for line in protocol_section(cls.TYPE).splitlines()
        if line.startswith("| `")
    ]
    stated = {row[0].strip("`"): (row[1].replace("\\|", "|"), row[2]) for row in rows}
    assert stated == {key: (spec.allowed, default_of(cls, key)) for key, spec in cls.FIELDS.items()}
    assert all(row[3] for row in rows)


@pytest.mark.parametrize("cls", ALL_TYPES, ids=lambda cls: cls.TYPE)
def test_protocol_document_describes_messages_as_the_code(cls: type[Message]) -> None:
    described = protocol_section(cls.TYPE).strip().split("\n\n")[0]
    assert described and (cls.__doc__ or "").startswith(described)


def test_protocol_document_has_every_code_and_a_true_example() -> None:
    words = PROTOCOL.read_text()
    assert re.findall(r"^\| (\d+) \| (\w+) \|", words, re.M) == [
        (str(int(code)), code.name) for code in (*Code, *wire.WarningCode)
    ]
    example = bytes.fromhex(re.findall(r"^    ([0-9a-f]{40,})$", words, re.M)[0])
    assert wire.decode([example]) == wire.Credit("s1", 0, 16)


def write_missing_golden() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for stem, msg in GOLDEN_CASES:
        path = GOLDEN / f"{stem}.hex"
        if not path.exists():
            path.write_text(golden_text(msg))


if __name__ == "__main__":
    write_missing_golden()
