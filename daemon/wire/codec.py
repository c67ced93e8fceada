"""Turns messages into bytes and bytes into messages, within limits.

Rules of this file: no I/O, no session state, no particular message; numpy and msgpack only.
On the wire: one msgpack map (key "type" and the fields), then the raw little-endian array of the payload field, if any.

Any bytes decode to a Message or raise WireError, in bounded time and memory. A WireError is the peer's fault and carries a
number. A LocalError is our own fault: a message breaks its own declaration.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from glowd.daemon.wire.compiled import builder, packer
from glowd.daemon.wire.fields import NAME, Array, Code, Message, Payload

DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "s16": np.dtype("<i2")}
S16_SCALE = np.float32(32767)
"""Full scale in 16-bit integers."""


class WireError(Exception):
    """A fault of the peer. `stream` is the name of the stream it concerns, "" if none could be read."""

    def __init__(self, code: Code, text: str, stream: str = "") -> None:
        super().__init__(f"{int(code)} {code.name}: {text}")
        self.code, self.text, self.stream = code, text, stream


class LocalError(Exception):
    """Our own fault: a message breaks its own declaration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The most that one message may cost its reader. `max_str_bytes` also limits keys."""

    max_message_bytes: int = 1 << 20
    max_parts: int = 2
    max_chunk_frames: int = 512
    max_header_bytes: int = 8192
    max_map_len: int = 64
    max_array_len: int = 512
    max_str_bytes: int = 2048


DEFAULT_LIMITS = Limits()


class Codec:
    """Encodes and decodes the messages of one protocol."""

    def __init__(self, messages: Iterable[type[Message]]) -> None:
        self.types: Mapping[str, type[Message]] = {cls.TYPE: cls for cls in messages}
        self._pack: dict[type[Message], Pack] = {}
        self._build: dict[str, Build] = {}  # both are made when they are needed first

    def encode(self, msg: Message) -> list[bytes]:
        """The parts of a multipart message. Raises LocalError if `msg` breaks its own declaration."""
        try:
            pack = self._pack.get(type(msg)) or self._make_pack(type(msg))
            return pack(msg)
        except (WireError, ValueError, OverflowError) as fault:
            raise LocalError(f"cannot send {msg.TYPE}: {fault}") from fault

    def _make_pack(self, cls: type[Message]) -> "Pack":
        if self.types.get(cls.TYPE) is not cls:
            raise WireError(Code.UNKNOWN_TYPE, f"{cls.TYPE} does not belong to this protocol")
        made: Pack = packer(cls, fault_of, PACKER.pack, pack_array)
        return self._pack.setdefault(cls, made)

    def decode(self, parts: Sequence[Any], limits: Limits = DEFAULT_LIMITS) -> Message:
        """The message in `parts` (bytes-like). Raises WireError, and nothing else, whatever the bytes are.

        The payload may be a read-only view of the bytes that were given.
        """
        header = read_header(parts, limits)
        try:
            kind = header.get("type")
            build = self._build.get(kind) if type(kind) is str else None
            return (build or self._make_build(kind))(header, parts[1:], limits)
        except WireError as fault:
            stream = header.get("stream")
            stream = stream if type(stream) is str and NAME.fullmatch(stream) else ""
            raise WireError(fault.code, fault.text, stream) from None

    def _make_build(self, kind: Any) -> "Build":
        cls = self.types.get(kind) if type(kind) is str else None
        if cls is None:
            raise WireError(Code.UNKNOWN_TYPE, f"type {show(kind)} is unknown; expected one of {', '.join(self.types)}")
        made: Build = builder(cls, fault_of, only_part, unpack_array)
        return self._build.setdefault(kind, made)


Pack = Callable[[Message], list[bytes]]
Build = Callable[[Mapping[str, Any], Sequence[Any], Limits], Message]
PACKER = msgpack.Packer()
"""Making one for each message takes longer than packing it."""


def fault_of(cls: type[Message], header: Mapping[str, Any]) -> WireError:
    """What is wrong with a header whose fields do not pass their tests."""
    if not header.keys() >= cls.REQUIRED:
        missing = sorted(cls.REQUIRED - header.keys())
        return WireError(Code.BAD_FIELD, f"{cls.TYPE} lacks {', '.join(missing)}")
    key, spec = next((key, spec) for key, spec in cls.FIELDS.items() if key in header and not spec.accepts(header[key]))
    return WireError(spec.code, f"{cls.TYPE}.{key} is {show(header[key])}; allowed: {spec.allowed}")


def only_part(cls: type[Message], parts: Sequence[Any]) -> Any:
    """The part behind the header. Raises WireError if there is none, or should not be any."""
    expected = int(cls.PAYLOAD is not None)
    if len(parts) != expected:
        raise WireError(Code.MALFORMED, f"{cls.TYPE} has {len(parts)} payload parts; expected {expected}")
    return parts[0]


def show(value: Any) -> str:
    """A value of a peer for an error message: short, and safe to print."""
    scalars = (type(None), bool, int, float, str)
    if type(value) in scalars or (type(value) is list and all(type(item) in scalars for item in value[:9])):
        return repr(value[:9] if type(value) is list else value)[:60]
    return f"a {type(value).__name__}"


def read_header(parts: Sequence[Any], limits: Limits) -> dict[str, Any]:
    """The header map. Raises WireError if the parts exceed the limits or the header is not a map."""
    if not parts:
        raise WireError(Code.MALFORMED, "a message without parts; expected a header, then the payload if there is one")
    sizes = [len(part) if type(part) is bytes else memoryview(part).nbytes for part in parts]
    if len(sizes) > limits.max_parts:
        raise _too_large(len(sizes), "parts", limits.max_parts)
    if sizes[0] > limits.max_header_bytes:
        raise _too_large(sizes[0], "header bytes", limits.max_header_bytes)
    if sum(sizes) > limits.max_message_bytes:
        raise _too_large(sum(sizes), "bytes", limits.max_message_bytes)
    return unpack_map(parts[0], limits)


def _too_large(size: int, what: str, limit: int) -> WireError:
    return WireError(Code.TOO_LARGE, f"a message of {size} {what}; at most {limit}")


def unpack_map(data: Any, limits: Limits) -> dict[str, Any]:
    """The map that `data` packs. Raises WireError."""
    try:
        header = msgpack.unpackb(
            data, raw=False, strict_map_key=True, object_pairs_hook=unique_map, max_bin_len=0, max_ext_len=0,
            max_str_len=limits.max_str_bytes, max_array_len=limits.max_array_len, max_map_len=limits.max_map_len,
        )  # fmt: skip
    except (ValueError, OverflowError, msgpack.UnpackException) as fault:
        raise WireError(Code.MALFORMED, f"the header is not a msgpack map within the limits: {fault}"[:300]) from None
    if type(header) is not dict:
        raise WireError(Code.MALFORMED, f"the header is {show(header)}, not a map")
    return header


def unique_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A map of `pairs`. Raises ValueError if a key appears twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def pack_array(values: Any, payload: Payload, cls: type[Message], shape: tuple[int, ...], dtype_name: str) -> bytes:
    """The bytes of a message's payload. Raises WireError if it is not what the header says."""
    values, dtype = np.asarray(values, np.float32), DTYPES[dtype_name]
    if values.shape != shape:
        raise WireError(Code.BAD_SHAPE, f"{cls.TYPE}.{payload.name} has shape {values.shape}; the header says {shape}")
    if payload.low is not None:
        check_values(values, payload, cls.TYPE)
    if dtype.kind == "i":
        return to_s16(values).tobytes()
    return (values if dtype == values.dtype else values.astype(dtype)).tobytes()


def to_s16(samples: Array) -> NDArray[np.int16]:
    """Samples as 16-bit integers: 32767 is 1.0, what is louder is clipped, NaN is silence."""
    return np.rint(np.clip(np.nan_to_num(samples, posinf=1.0, neginf=-1.0), -1, 1) * S16_SCALE).astype("<i2")


def unpack_array(
    data: Any, payload: Payload, cls: type[Message], shape: tuple[int, ...], dtype_name: str, limits: Limits
) -> Array:
    """The payload as float32. Raises WireError unless `data` has the shape, type and size that the header says."""
    dtype, nbytes = DTYPES[dtype_name], len(data) if type(data) is bytes else memoryview(data).nbytes
    if payload.chunked and shape[0] > limits.max_chunk_frames:
        raise WireError(Code.TOO_LARGE, f"{shape[0]} frames in one message; at most {limits.max_chunk_frames}")
    expected = math.prod(shape) * dtype.itemsize
    if nbytes != expected:
        raise WireError(Code.BAD_SHAPE, f"{cls.TYPE} payload of {nbytes} bytes; {list(shape)} {dtype} needs {expected}")
    values: Array = np.frombuffer(data, dtype).reshape(shape) if nbytes else np.empty(shape, dtype)
    if dtype.kind == "i":
        values = values / S16_SCALE
    elif dtype != np.float32:
        values = values.astype(np.float32)
    if payload.low is not None:
        check_values(values, payload, cls.TYPE)
    return values


def check_values(values: Array, payload: Payload, kind: str) -> None:
    """Raises WireError if a value is not finite or out of the payload's range."""
    if payload.low is None or payload.high is None or not values.size:
        return
    bound = max(0.0, min(-payload.low, payload.high))
    if np.vdot(values, values) < 0.99 * bound * bound:  # so each value is; a sum with NaN or infinity is not less
        return
    low, high = float(values.min()), float(values.max())
    if low >= payload.low and high <= payload.high:  # of an array with NaN both are NaN
        return
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise WireError(
            Code.NOT_FINITE, f"{kind} payload contains NaN or Inf, first at index {row}; expected finite numbers"
        )
    allowed = f"{payload.low:g}..{payload.high:g}"
    raise WireError(Code.OUT_OF_RANGE, f"{kind} payload ranges from {low:g} to {high:g}; allowed: {allowed}")
