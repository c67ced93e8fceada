"""PyTorch files (.pt, .pth, .bin) read without PyTorch, and without running anything in them.

Rules: numpy and standard library only; clients use this too. Tensors become read-only numpy arrays (bfloat16 float32), plain
containers stay what they are, modules and other objects become `Opaque`; safe_pickle.py has the rules for calls. Storages are
memory-mapped: only the pickle is read before an array is used.

    zip (PyTorch 1.6 on)    NAME/data.pkl, NAME/data/KEY, NAME/byteorder; every record stored uncompressed
    legacy (before 1.6)     pickles: magic, protocol, system, object, storage keys; then per key: count, raw elements

Sizes are checked against the file before they are used: records may not be compressed, and no tensor may have more elements
than its storage. So no array is larger than the file (twice its size for bfloat16).
"""

import mmap
import struct
import zipfile
import zlib
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

from glowd.flow.recognition.archives import MAX_TABLE_BYTES, table_bytes
from glowd.flow.recognition.kinds import recognise
from glowd.flow.torchfile.safe_pickle import CheckpointFileError, GlobalName, Opaque, UnsafeCheckpoint, load
from glowd.flow.torchfile.tensors import Array, Storages, array_of, known_calls, storage_dtype

__all__ = ["Array", "CheckpointFileError", "Opaque", "UnsafeCheckpoint", "array_of", "read_pt", "read_pt_memory"]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


def read_pt(path: str | Path) -> Any:
    """The object that `torch.save` wrote to `path`: dicts, lists, numbers, numpy arrays, `Opaque` objects.

    Raises OSError if the file cannot be read, UnsafeCheckpoint if it asks for code to be run, CheckpointFileError if it is
    damaged, truncated or not a PyTorch file. Every text names the file.
    """
    if (kind := recognise(path)).name != "torch":
        raise CheckpointFileError(f"{path}: it is {kind.instead_of('a file that torch.save wrote')}")
    try:
        with Path(path).open("rb") as file:
            return read_pt_memory(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except CheckpointFileError as error:
        raise type(error)(f"{path}: {error}") from error


def read_pt_memory(memory: memoryview) -> Any:
    """The same for the content of a file. Raises UnsafeCheckpoint, CheckpointFileError."""
    if bytes(memory[:4]) == b"PK\x03\x04":
        return _read_zip(memory)
    if LEGACY_MAGIC.to_bytes(10, "little") in bytes(memory[:32]):
        return _read_legacy(memory)
    raise CheckpointFileError("it is no file that torch.save wrote")


# The zip container.


class _MemoryFile(RawIOBase):
    """Memory as a file that can be read, without a copy."""

    def __init__(self, memory: memoryview) -> None:
        self._memory, self._at = memory, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, len(self._memory))[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._memory[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _as_stream(memory: memoryview) -> BufferedReader:
    return BufferedReader(_MemoryFile(memory))


def _read_zip(memory: memoryview) -> Any:
    file = _as_stream(memory)
    length = table_bytes(file, len(memory))
    if length is None or length > MAX_TABLE_BYTES:
        raise CheckpointFileError("a damaged or truncated zip file: its table of contents is missing or too long")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointFileError(f"a damaged or truncated zip file: {error}") from error
    records = _ZipRecords(memory, infos, _prefix(infos))
    order = bytes(records["byteorder"]) if "byteorder" in records else b"little"
    pickle = records["data.pkl"]
    storages = Storages(lambda key: records[f"data/{key}"], order == b"big")
    return load(_as_stream(pickle), known_calls(storages.tensor), lambda pid: _zip_storage(pid, storages))


def _prefix(infos: dict[str, zipfile.ZipInfo]) -> str:
    if any(name.endswith("/constants.pkl") for name in infos):
        raise CheckpointFileError(
            "a TorchScript program is not supported; write the model's state_dict with torch.save"
        )
    pickles = [name for name in infos if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointFileError(f"not a PyTorch zip file: it has {len(pickles)} records NAME/data.pkl, expected 1")
    return pickles[0].removesuffix("data.pkl")


class _ZipRecords:
    """Records of the archive by name, as views of the mapped file. Access verifies the checksum."""

    def __init__(self, memory: memoryview, infos: dict[str, zipfile.ZipInfo], prefix: str) -> None:
        self._memory, self._infos, self._prefix = memory, infos, prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._infos

    def __getitem__(self, name: str) -> memoryview:
        if name not in self:
            raise CheckpointFileError(f"record {name} is missing in the file")
        info = self._infos[self._prefix + name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise CheckpointFileError(f"record {name} is compressed or encrypted; PyTorch stores records as they are")
        view = self._view(name, info)
        # torch.serialization.set_crc32_options(False) writes 0 for every checksum.
        if info.CRC and zlib.crc32(view) != info.CRC:
            raise CheckpointFileError(f"record {name} does not match its checksum: the file is damaged")
        return view

    def _view(self, name: str, info: zipfile.ZipInfo) -> memoryview:
        header = bytes(self._memory[info.header_offset : info.header_offset + 30])
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise CheckpointFileError(f"record {name} has no header at byte {info.header_offset}: the file is damaged")
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_bytes + extra_bytes
        if start + info.file_size > len(self._memory):
            raise CheckpointFileError(f"record {name} ends beyond the file: truncated, or its size is false")
        return self._memory[start : start + info.file_size]


def _zip_storage(pid: Any, storages: Storages) -> Array:
    match pid:
        case ("storage", GlobalName() as kind, str() as key, _, int() as count):
            return storages.get(key, kind, count)
    raise CheckpointFileError("malformed storage reference; expected ('storage', type, key, location, count)")


# The legacy container.


def _read_legacy(memory: memoryview) -> Any:
    """The object comes before its storages: it is read once to find them, and a second time to use them."""
    stream = _as_stream(memory)
    magic, protocol, system = (load(stream, {}, _no_reference) for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
        raise CheckpointFileError(f"a PyTorch file of protocol {protocol!r}; expected {LEGACY_PROTOCOL}")
    start, item_bytes = stream.tell(), dict[str, int]()
    load(stream, known_calls(_nothing), lambda pid: _promised_storage(pid, item_bytes))
    keys = load(stream, {}, _no_reference)
    views = _legacy_views(memory[stream.tell() :], keys, item_bytes)
    storages = Storages(views.__getitem__, not system.get("little_endian", True))
    stream.seek(start)
    return load(stream, known_calls(storages.tensor), lambda pid: _legacy_storage(pid, storages))


def _no_reference(_: Any) -> Any:
    raise CheckpointFileError("malformed file: a storage reference outside the object")


def _nothing(*_: Any) -> None:
    """In place of tensors while only the storages are looked for."""


def _promised_storage(pid: Any, item_bytes: dict[str, int]) -> GlobalName | None:
    match pid:
        case ("storage", GlobalName() as kind, str() as key, _, int(), _):
            item_bytes.setdefault(key, storage_dtype(kind).itemsize)
            return None
        case ("module", GlobalName() as module_class, _, _):
            # A module's class, with its source file and text, which are not used.
            return module_class
    raise CheckpointFileError("malformed storage reference; expected ('storage', type, key, location, count, view)")


def _legacy_views(rest: memoryview, keys: Any, item_bytes: dict[str, int]) -> dict[str, memoryview]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != item_bytes.keys():
        raise CheckpointFileError("malformed file: its storages differ from those that its object refers to")
    views = dict[str, memoryview]()
    for key in keys:
        if len(rest) < 8:
            raise CheckpointFileError(f"truncated before storage {key!r}")
        count = struct.unpack("<q", rest[:8])[0]
        end = 8 + count * item_bytes[key]
        if not 8 <= end <= len(rest):
            raise CheckpointFileError(f"truncated inside storage {key!r} of {count} elements, or its size is false")
        views[key], rest = rest[8:end], rest[end:]
    return views


def _legacy_storage(pid: Any, storages: Storages) -> Array | GlobalName | None:
    match pid:
        case ("storage", GlobalName() as kind, str() as key, _, int() as count, None):
            return storages.get(key, kind, count)
        case ("storage", GlobalName() as kind, str() as key, _, int() as count, (_, int() as offset, int() as size)):
            return storages.get(key, kind, count)[max(offset, 0) :][: max(size, 0)]
    return _promised_storage(pid, {})
