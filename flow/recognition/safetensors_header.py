"""The header of a safetensors file: its metadata, and the shapes of its tensors, none of which is read.

Rules: standard library only. The length of the header is checked before the header is read, and what it claims against the
size of the file. `describe` returns name, what and advice of a FileKind (kinds.py).
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MAX_HEADER_BYTES = 4 << 20
"""A voice's header has 100 kB, most of it its card."""
FORMAT, PITCH = "glowd_format", "glowd_pitch"
"""Keys of the metadata of glowd's own files."""


class HeaderError(ValueError):
    """A header that is no header, or claims what cannot be. The text completes "FILE is a safetensors file, but ..."."""


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata, and the shape of every tensor by its name."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    end: int
    """The size that the file must have."""


def read(path: Path) -> Header:
    """The header of a file. Raises HeaderError, OSError."""
    with path.open("rb") as file:
        return _read(file, path.stat().st_size)


def _read(file: IO[bytes], size: int) -> Header:
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"its header claims {length} bytes; allowed: at most {MAX_HEADER_BYTES}")
    if 8 + length > size:
        raise HeaderError(f"it is cut off: its header has {length} bytes, the whole file {size}")
    try:
        table = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is damaged ({type(error).__name__})") from error
    if not isinstance(table, dict):
        raise HeaderError("its header is no table")
    return _parsed(table, 8 + length, size)


def _parsed(table: dict[str, Any], begin: int, size: int) -> Header:
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("its metadata are no texts")
    shapes, end = dict[str, tuple[int, ...]](), begin
    for name, entry in table.items():
        match entry:
            case {"shape": [*shape], "data_offsets": [int(), int() as last]} if all(_is_size(one) for one in shape):
                shapes[name], end = tuple(shape), max(end, begin + last)
            case _:
                raise HeaderError("its header has an entry without a shape or a place")
    if end > size:
        raise HeaderError(f"it is cut off: its header promises {end} bytes, the file has {size}; download it again")
    return Header(metadata, shapes, end)


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def describe(file: IO[bytes], size: int) -> tuple[str, str, str]:
    """A file that begins as a safetensors file."""
    try:
        metadata = _read(file, size).metadata
    except HeaderError as error:
        return "damaged", f"a safetensors file, but {error}", "download it again, or write it again"
    if FORMAT in metadata:
        return "glowd", "a checkpoint of glowd already", "it needs no import: name it in a [voices.NAME] table"
    if PITCH in metadata:
        return "pitch", "a pitch network of glowd, not a voice", "give it to glowlab train --pitch"
    return "safetensors", "a safetensors file of another program", ""
