"""How a message is declared: a frozen dataclass in which every field says what it may hold.

Rules of this file: no bytes, no I/O, and no particular message. A message is a class decorated with `@message`. Each
header field is declared by one of the field functions (`integer`, `identifier`, ...), and the array behind the header, if
there is one, by `array`. The codec needs nothing but these declarations to read and write bytes.
"""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from enum import IntEnum
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from glowd.daemon.wire.records import Record, read, required_keys

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_INDEX = 2**53 - 1  # every language's numbers hold this exactly
MAX_NS = 2**63 - 1
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000

Array = NDArray[np.float32]


class Code(IntEnum):
    """Error numbers. 1xx: message, 2xx: stream, 3xx: mel, 4xx: refused, 5xx: daemon."""

    MALFORMED = 100
    UNKNOWN_TYPE = 101
    BAD_FIELD = 102
    TOO_LARGE = 103
    BAD_VERSION = 104
    NO_HELLO = 105
    UNKNOWN_STREAM = 200
    STREAM_EXISTS = 201
    WRONG_STATE = 202
    OVER_CREDIT = 203
    GAP = 204
    WRONG_GENERATION = 205
    WRONG_FORMAT = 300
    BAD_SHAPE = 301
    NOT_FINITE = 302
    OUT_OF_RANGE = 303
    UNLIKELY_MEL = 304
    AT_CAPACITY = 400
    TOO_MANY_CLIENTS = 401
    UNKNOWN_VOICE = 402
    SINK_UNAVAILABLE = 403
    BAD_SINK = 404
    TOO_LONG = 405
    NOT_ALLOWED = 406
    OVER_QUOTA = 407
    INTERNAL = 500
    ENGINE_LOST = 501
    DEVICE_LOST = 502
    STOPPING = 503
    IDLE_TIMEOUT = 504


@functools.lru_cache(4096)
def is_name(text: str) -> bool:
    """Whether a text is a name. Few are used, and each comes with every message."""
    return NAME.fullmatch(text) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """What one header field may hold: as text for error messages, as a test, and the error code of a value that fails it.

    `test` is an expression in Python, so that the tests of all fields of a message can be made one function (compiled.py): `{0}`
    is the value, `{1}` the `helper`. `read` turns the value in the header into the value of the field, if they differ: into a
    record.
    """

    allowed: str
    test: str
    helper: Any = None
    code: Code = Code.BAD_FIELD
    read: Callable[[Any], Record] | None = None

    def accepts(self, value: Any) -> bool:
        """Whether a value passes the test."""
        return _test(self.test)(value, self.helper)


@functools.cache
def _test(test: str) -> Callable[[Any, Any], bool]:
    return cast(Callable[[Any, Any], bool], eval(f"lambda value, helper: {test.format('value', 'helper')}"))


@dataclasses.dataclass(frozen=True, slots=True)
class Payload:
    """The array behind the header, in the field `name`. `shape` and `dtype` name header fields, or are fixed values."""

    name: str
    shape: tuple[str | int, ...]
    dtype: str
    low: float | None
    high: float | None
    chunked: bool  # the first axis counts mel frames; Limits.max_chunk_frames applies


class WarningCode(IntEnum):
    """Numbers of the warnings. 60x: the mel; 61x: what was done to the audio; 62x: who is late; 63x: quotas."""

    MEL_SCALE = 600
    MEL_FLOOR = 601
    MEL_CONSTANT = 602
    MEL_PADDING = 603
    MEL_ORDER = 604
    MEL_APPROXIMATE = 605
    AUDIO_SILENCED = 610
    AUDIO_LIMITED = 611
    LATE_FRAMES = 620
    LATE_ENGINE = 621
    SLOW_LISTENER = 622
    DEVICE_GAP = 623
    QUOTA_REACHED = 630


ASK = "{1}({0})"
"""The test of a field that asks its helper."""
IS_OTHER_INT = "isinstance({0}, int) and type({0}) is not bool"
"""An enumeration's, for example."""
REQUIRED: Any = dataclasses.MISSING


def field(spec: Spec, *, default: Any = REQUIRED, added: bool = False) -> Any:
    """Declare a header field. A mutable default is copied for each message. `added`: see Message.ADDED."""
    metadata = {"spec": spec, "added": added}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def integer(low: int = 0, high: int = MAX_INDEX, *, default: Any = REQUIRED, added: bool = False) -> Any:
    """An integer in low..high; true and false are not integers."""
    test = f"(type({{0}}) is int or {IS_OTHER_INT}) and {low} <= {{0}} <= {high}"
    return field(Spec(f"an integer, {low}..{high}", test), default=default, added=added)


def sample_rate(*, default: Any = REQUIRED, added: bool = False) -> Any:
    """Samples in a second, or 0 where a rate need not be said."""
    test = f"type({{0}}) is int and ({{0}} == 0 or {MIN_RATE_HZ} <= {{0}} <= {MAX_RATE_HZ})"
    return field(Spec(f"0, or an integer, {MIN_RATE_HZ}..{MAX_RATE_HZ}", test), default=default, added=added)


def nanoseconds(*, default: Any = REQUIRED, added: bool = False) -> Any:
    """A reading of a monotonic clock, in nanoseconds."""
    return integer(0, MAX_NS, default=default, added=added)


def number(low: float, high: float, *, default: Any = REQUIRED, added: bool = False) -> Any:
    """A finite number in low..high."""
    test = f"(type({{0}}) is float or type({{0}}) is int) and {low} <= {{0}} <= {high}"  # NaN fails both comparisons
    return field(Spec(f"a number, {low:g}..{high:g}", test), default=default, added=added)


def flag(*, default: Any = REQUIRED, added: bool = False) -> Any:
    """True or false."""
    return field(Spec("true or false", "type({0}) is bool"), default=default, added=added)


def choice(*options: str, default: Any = REQUIRED, added: bool = False) -> Any:
    """One of the `options`."""
    return field(Spec(" or ".join(map(repr, options)), "{0} in {1}", options), default=default, added=added)


def identifier(*extra: str, default: Any = REQUIRED, added: bool = False) -> Any:
    """A name, or one of the `extra` values."""

    test = "type({0}) is str and (is_name({0}) or {0} in {1})" if extra else "type({0}) is str and is_name({0})"
    also = "".join(f" or {word!r}" for word in extra)
    return field(Spec(f"1..64 characters of A-Z a-z 0-9 . _ -{also}", test, extra), default=default, added=added)


def string(max_chars: int, *, default: Any = REQUIRED, added: bool = False) -> Any:
    """Text of at most `max_chars` characters."""
    test = f"type({{0}}) is str and len({{0}}) <= {max_chars}"
    return field(Spec(f"text of at most {max_chars} characters", test), default=default, added=added)


def string_list(low: int, high: int, pattern: str, code: Code, *, default: Any = REQUIRED) -> Any:
    """A list of `low`..`high` strings, each matching `pattern` as a whole."""
    compiled = re.compile(pattern)

    def accepts(value: Any) -> bool:
        strings = type(value) is list and low <= len(value) <= high and all(type(item) is str for item in value)
        return strings and all(compiled.fullmatch(item) for item in value)

    return field(Spec(f"a list of {low}..{high} strings matching {pattern}", ASK, accepts, code), default=default)


def is_plain(value: Any, depth: int) -> bool:
    """Whether a value is JSON-like (finite numbers, string keys) and nested at most `depth` levels."""
    if value is None or type(value) in (bool, int, str):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if type(value) is list:
        return all(is_plain(item, depth - 1) for item in value)
    return type(value) is dict and all(type(k) is str and is_plain(v, depth - 1) for k, v in value.items())


def mapping(depth: int = 4, *, default: Any = REQUIRED) -> Any:
    """A JSON-like map, nested at most `depth` levels."""
    spec = Spec(
        f"a map, nested at most {depth} deep", "type({0}) is dict and {1}({0})", lambda value: is_plain(value, depth)
    )
    return field(spec, default=default)


def mappings(depth: int = 4, *, default: Any = REQUIRED) -> Any:
    """A list of JSON-like maps."""

    def accepts(value: Any) -> bool:
        return type(value) is list and all(type(item) is dict and is_plain(item, depth) for item in value)

    return field(Spec(f"a list of maps, nested at most {depth} deep", ASK, accepts), default=default)


def record(kind: Any) -> Any:
    """A map that is a record, or the first that fits of a union of records."""

    def accepts(value: Any) -> bool:
        if type(value) is not dict or not is_plain(value, 4):
            return False
        with contextlib.suppress(ValueError):
            return read(kind, value) is not None
        return False

    spec = Spec(f"a map with {required_keys(kind)}", ASK, accepts, read=lambda value: read(kind, value))
    return field(spec)


def _are_timestamps(value: Any) -> bool:
    if type(value) is not dict:
        return False
    for name, at in value.items():  # noqa: SIM110 (a generator takes three times as long)
        if type(name) is not str or type(at) is not int or at < 0:
            return False
    return True


def timestamps(*, default: Any = REQUIRED) -> Any:
    """A map from the name of a stage to nanoseconds."""
    return field(Spec("a map of names to nanoseconds", ASK, _are_timestamps), default=default)


def array(
    *shape: str | int, dtype: str = "f32", low: float | None = None, high: float | None = None,
    chunked: bool = False, default: None = None,
) -> Any:  # fmt: skip
    """Declare the payload: float32 [*shape] for its readers, whatever its type on the wire.

    With `low` and `high`, values must be finite and in that range; sender and receiver check it.
    """
    payload = Payload("", shape, dtype, low, high, chunked)
    return dataclasses.field(default_factory=lambda: np.empty(0, np.float32), metadata={"payload": payload})


class Message:
    """Base of all messages. Two are equal if the type, every field and the payload's values are equal."""

    __slots__ = ()
    TYPE: ClassVar[str]
    FIELDS: ClassVar[dict[str, Spec]]
    ADDED: ClassVar[frozenset[str]]
    """Fields that the first release did not have: left out of the header where they have their default."""
    REQUIRED: ClassVar[frozenset[str]]
    DEFAULTS: ClassVar[dict[str, Any]]
    """Of the fields that have one; without those that are made for each message."""
    READERS: ClassVar[dict[str, Callable[[Any], Record]]]
    """Of the fields that hold a record: from the map in the header."""
    PAYLOAD: ClassVar[Payload | None]

    def header(self) -> dict[str, Any]:
        """The fields as they are in the header; records as maps."""
        values = {key: getattr(self, key) for key in self.FIELDS}
        for key in self.ADDED:
            if values[key] == self.DEFAULTS[key]:
                del values[key]
        for key in self.READERS:
            values[key] = values[key].to_map()
        return values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message) or self.TYPE != other.TYPE or self.header() != other.header():
            return False
        return self.PAYLOAD is None or np.array_equal(
            getattr(self, self.PAYLOAD.name), getattr(other, self.PAYLOAD.name)
        )

    __hash__ = None  # type: ignore[assignment]


M = TypeVar("M", bound=Message)


@dataclass_transform(
    frozen_default=True,
    eq_default=False,
    field_specifiers=(
        integer, sample_rate, nanoseconds, number, flag, choice, identifier, string, string_list, mapping, mappings,
        record, timestamps, array,
    ),
)  # fmt: skip
def message(cls: type[M]) -> type[M]:
    """Make a class a frozen message. Its type on the wire is its name in snake_case: DeviceReady is "device_ready".

    That nobody changes one is held by mypy: to hold it at run time would double the time to make one.
    """
    found = dataclasses.dataclass(slots=True, eq=False)(cls)
    fields = dataclasses.fields(found)  # type: ignore[arg-type]
    header = [f for f in fields if "spec" in f.metadata]
    payloads = [dataclasses.replace(f.metadata["payload"], name=f.name) for f in fields if "payload" in f.metadata]
    found.TYPE = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
    found.FIELDS = {f.name: f.metadata["spec"] for f in header}
    found.ADDED = frozenset(f.name for f in header if f.metadata["added"])
    found.REQUIRED = frozenset(f.name for f in header if f.default is f.default_factory is dataclasses.MISSING)
    found.DEFAULTS = {f.name: f.default for f in header if f.default is not dataclasses.MISSING}
    found.READERS = {name: spec.read for name, spec in found.FIELDS.items() if spec.read}
    found.PAYLOAD = payloads[0] if payloads else None
    return found
