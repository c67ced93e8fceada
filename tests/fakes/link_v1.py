"""Version 1 of the engine link, frozen: how an engine or a gateway of the release before reads and writes messages.

Rules: nothing of the daemon is imported, so that nothing here changes with it. What version 1 did not know, it refuses.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

Fields = dict[str, Any]

FIELDS: dict[str, dict[str, type]] = {
    "join": {
        "version": int, "oldest_version": int, "voice": str, "engine": str, "instance": int, "host": str, "cores": int,
        "chunk_frames": int, "max_chunk_frames": int,
    },
    "joined": {"version": int, "name": str},
    "turned_away": {"text": str},
    "leaving": {},
    "dismissed": {},
    "start": {
        "key": int, "seed": int, "first_frame": int, "sigma": float, "lead_frames": int, "phase": float, "attempt": int,
    },
    "frames": {"key": int, "first_frame": int, "frames": int, "bins": int, "t_client_ns": int, "t_gateway_ns": int},
    "finish": {"key": int},
    "drop": {"key": int},
    "drop_all": {},
    "ready": {
        "voice": str, "info": dict, "instance": int, "device": str, "threads": int, "start_s": float, "digest": str,
    },
    "pcm": {
        "key": int, "first_sample": int, "samples": int, "last": bool, "frames_done": int, "t_client_ns": int,
        "t_gateway_ns": int, "t_engine_ns": int, "t_due_ns": int, "t_start_ns": int, "t_end_ns": int, "batch": int,
        "phase": float, "peak": float, "silenced": bool, "arrived_ns": int, "arrived_first": int, "arrived_end": int,
        "arrived_freely": bool, "attempt": int,
    },
    "failed": {"key": int, "text": str, "attempt": int},
    "load": {"stats": dict},
}  # fmt: skip
"""The fields of each message, in the order in which they are packed."""
LEFT_OUT: dict[str, Fields] = {
    "start": {"attempt": 0}, "ready": {"digest": ""}, "pcm": {"attempt": -1}, "failed": {"attempt": -1},
}  # fmt: skip
"""Fields that are left out where they have this value; all others are always there."""
PAYLOADS = {"frames": ("frames", "bins"), "pcm": ("samples",)}
"""The shape of the float32 numbers behind a header, in fields of it."""


class RefusedError(Exception):
    """Version 1 cannot read this."""


def encode(kind: str, fields: Fields, payload: Any = None) -> list[bytes]:
    """The parts of a message."""
    header = {"type": kind, **{name: fields[name] for name in FIELDS[kind]}}
    for name, value in LEFT_OUT.get(kind, {}).items():
        if header[name] == value:
            del header[name]
    head = msgpack.packb(header)
    return [head] if payload is None else [head, np.asarray(payload, "<f4").tobytes()]


def decode(parts: Sequence[bytes]) -> tuple[str, Fields, Any]:
    """Type, fields and payload of a message; fields that are not known are ignored. Raises RefusedError."""
    header = msgpack.unpackb(parts[0], raw=False)
    kind = header.get("type")
    if kind not in FIELDS:
        raise RefusedError(f"type {kind!r} is unknown")
    found = {**LEFT_OUT.get(kind, {}), **{name: header[name] for name in FIELDS[kind] if name in header}}
    for name, allowed in FIELDS[kind].items():
        value = found.get(name)
        if type(value) is not allowed and (allowed, type(value)) != (float, int):
            raise RefusedError(f"{kind}.{name} is {value!r}, not {allowed.__name__}")
    if len(parts) != 1 + (kind in PAYLOADS):
        raise RefusedError(f"{kind} has {len(parts)} parts")
    return kind, found, _payload(kind, found, parts)


def _payload(kind: str, fields: Fields, parts: Sequence[bytes]) -> Any:
    if kind not in PAYLOADS:
        return None
    shape = tuple(fields[axis] for axis in PAYLOADS[kind])
    if len(parts[1]) != 4 * math.prod(shape):
        raise RefusedError(f"{kind} has {len(parts[1])} bytes of numbers; its shape is {shape}")
    return np.frombuffer(parts[1], "<f4").reshape(shape)
