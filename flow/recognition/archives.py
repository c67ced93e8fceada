"""Zip and tar archives by what is in them: PyTorch files, .npz, .nemo, TorchScript, and downloads that were packed.

Rules: standard library only. The table of contents is read, members are not; a table that is too long is not read either.
Each function returns name, what and advice of a FileKind (kinds.py).
"""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from glowd.flow.recognition.printable import printable

Described = tuple[str, str, str]

MAX_TABLE_BYTES = 4 << 20
"""Of the table of contents of a zip: some 50,000 members. A WaveGlow has 700."""
MAX_MEMBERS = 256
"""Members of a tar that are looked at."""
PEEK_BYTES = 1 << 16
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".nemo", ".safetensors", ".npz", ".onnx", ".h5", ".pb")
NEMO_CONFIG, NEMO_WEIGHTS = "model_config.yaml", "model_weights.ckpt"
OLD_TORCH = {"sys_info", "pickle", "tensors", "storages"}


def table_bytes(file: IO[bytes], size: int) -> int | None:
    """The length of a zip's table of contents as its end says; None if the end is missing."""
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return None
    length: int = struct.unpack("<L", tail[at + 12 : at + 16])[0]
    if length != 0xFFFFFFFF:
        return length
    long = tail.rfind(b"PK\x06\x06", 0, at)  # the zip is of the 64-bit kind, whose own end lies before
    return struct.unpack("<Q", tail[long + 40 : long + 48])[0] if long >= 0 and len(tail) - long >= 48 else None


def describe_zip(file: IO[bytes], size: int) -> Described:
    """A file that begins as a zip."""
    length = table_bytes(file, size)
    if length is None:
        what = "a zip or PyTorch file that is cut off: its end is missing, as after a download that broke off"
        return "cut", what, "download it again"
    if length > MAX_TABLE_BYTES:
        return "zip", f"a zip file with a table of contents of {length} bytes", "give a checkpoint"
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return "cut", "a damaged zip file", "download it again"
    return _by_members(names)


def _by_members(names: list[str]) -> Described:
    if any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        if any(name.endswith("/constants.pkl") for name in names):
            return "torchscript", "a TorchScript program", "write the model's state_dict with torch.save, and give that"
        return "torch", "a PyTorch checkpoint", ""
    if names and all(name.endswith(".npy") for name in names):
        return "npz", "an .npz of numpy arrays", ""
    return "zip", f"a zip archive {_with(names)}", _unpack(names, "unzip")


def describe_tar(file: IO[bytes], head: bytes, size: int) -> Described:
    """A file that begins as a tar, or as gzip, which may have a tar in it."""
    packed = head.startswith(b"\x1f\x8b")
    names = list(_gzip_names(file) if packed else _tar_names(file))
    bare = {PurePosixPath(name).name for name in names}
    if NEMO_WEIGHTS in bare or NEMO_CONFIG in bare:
        return "nemo", "a NeMo archive", ""
    if OLD_TORCH & bare:
        return "tar", "a tar file of PyTorch 0.1", "load it with PyTorch, and write it again with torch.save"
    if packed and not names:
        return "packed", "packed by gzip", "unpack it first: gunzip"
    return "tar", f"a tar archive {_with(names)}", _unpack(names, "tar -xf")


def _tar_names(file: IO[bytes]) -> Iterator[str]:
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member, _ in zip(archive, range(MAX_MEMBERS), strict=False):
                yield member.name
    except (tarfile.TarError, ValueError, OSError, RecursionError):
        return


def _gzip_names(file: IO[bytes]) -> Iterator[str]:
    """The members whose headers lie in the first bytes that come out: no more is unpacked."""
    file.seek(0)
    try:
        start = zlib.decompressobj(31).decompress(file.read(PEEK_BYTES), PEEK_BYTES)
    except zlib.error:
        return
    at = 0
    while len(header := start[at : at + 512]) == 512 and header[257:262] == b"ustar":
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.TarError:
            return
        yield member.name
        at += 512 + (max(0, member.size) + 511) // 512 * 512


def _with(names: list[str]) -> str:
    found = [name for name in names if name.lower().endswith(CHECKPOINTS)]
    if not found:
        return f"of {len(names)} files, with no checkpoint that glowd knows" if names else "without files"
    return f"with {printable(found[0])} inside"


def _unpack(names: list[str], command: str) -> str:
    found = [name for name in names if name.lower().endswith(CHECKPOINTS)]
    return f"unpack it ({command}), and give {printable(found[0])}" if found else "give a checkpoint"
