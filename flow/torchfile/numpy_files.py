"""numpy's files (.npy, .npz) read with every size checked against the file before memory is taken.

Rules: numpy and standard library only; clients use this too. Objects are refused: they are pickles. A compressed .npz may hold
at most MAX_GROWTH times its own size, so that a small file cannot fill the memory.
"""

import math
import tokenize
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from glowd.flow.recognition.archives import MAX_TABLE_BYTES, table_bytes
from glowd.flow.torchfile.safe_pickle import CheckpointFileError
from glowd.flow.torchfile.tensors import Array

MAX_GROWTH = 8
LEAST_LIMIT_BYTES = 1 << 20
"""Allowed in any case: silence and new weights compress well."""
MAX_HEADER_BYTES = 10_000


def read_npy(path: Path) -> Array:
    """The array of a .npy. Raises CheckpointFileError, OSError."""
    with path.open("rb") as file:
        return _array(file, path.stat().st_size, path.name)


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an .npz by name. Raises CheckpointFileError, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = table_bytes(file, size)
        if length is None or length > MAX_TABLE_BYTES:
            raise CheckpointFileError("a damaged or truncated .npz: its table of contents is missing or too long")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _members(archive, max(LEAST_LIMIT_BYTES, MAX_GROWTH * size))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise CheckpointFileError(f"a damaged .npz: {error}") from error


def _members(archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, Array]:
    infos = archive.infolist()
    if (total := sum(info.file_size for info in infos)) > limit_bytes:
        raise CheckpointFileError(
            f"its arrays have {total} bytes unpacked; allowed: {limit_bytes} for a file of its size"
        )
    arrays = dict[str, Array]()
    for info in infos:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1)
        arrays[info.filename.removesuffix(".npy")] = _array(BytesIO(content), len(content), info.filename)
    return arrays


def _array(file: IO[bytes], size: int, name: str) -> Array:
    """One array of a file of `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]  # fmt: skip
        shape, turned, dtype = read_header(file, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, KeyError, EOFError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise CheckpointFileError(f"{name} has no header of a numpy array ({type(error).__name__})") from error
    if dtype.hasobject:
        raise CheckpointFileError(f"{name} holds Python objects, which are not read; save numbers only")
    count, left = math.prod(shape), size - file.tell()
    if count < 0 or count * dtype.itemsize > left:
        raise CheckpointFileError(
            f"{name} claims {list(shape)} of {dtype}; the file has {left} bytes for it: cut off, or false"
        )
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return flat.reshape(shape[::-1]).T if turned else flat.reshape(shape)
