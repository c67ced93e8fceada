"""The content of a file with somebody's weights, whatever kind of file that is.

Rules: what a file is, is recognised in one place (recognition/); this reads each kind that can hold a WaveGlow, and runs nothing.
The arrays of a file together may have some times its size, and no more.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from glowd.flow.checkpoint import CheckpointError
from glowd.flow.importing.nemo import read_nemo
from glowd.flow.recognition.kinds import recognise
from glowd.flow.torchfile.numpy_files import read_npz
from glowd.flow.torchfile.reader import Array, CheckpointFileError, read_pt

MAX_GROWTH = 16
"""Of float32 weights over the file's size: four times for 8-bit weights, and four for compression."""
MAX_WEIGHTS = 20_000
"""Arrays in a file. The largest WaveGlow that can be imported has 8,500."""


def read_content(path: Path) -> Any:
    """What is in a file: arrays by name, or whatever torch.save was given; of a NeMo archive with its configuration.

    Raises CheckpointError for another kind of file, UnsafeCheckpoint, CheckpointFileError, OSError.
    """
    kind = recognise(path)
    if not kind.is_importable:
        raise CheckpointError(f"{path} is {kind.what}; {kind.advice}")
    readers = {"torch": read_pt, "safetensors": _read_safetensors, "npz": read_npz, "nemo": read_nemo}
    try:
        return readers[kind.name](path)
    except CheckpointFileError as error:
        named = str(error).startswith(str(path))
        raise (error if named else type(error)(f"{path}: {error}")) from error


def _read_safetensors(path: Path) -> dict[str, Array]:
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            if len(names) > MAX_WEIGHTS:
                raise CheckpointFileError(f"it holds {len(names)} arrays; allowed: at most {MAX_WEIGHTS}")
            return {name: file.get_tensor(name).float().numpy() for name in names}
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointFileError(f"a damaged safetensors file: {error}") from error


def check_size(arrays: Iterable[Array], path: Path) -> None:
    """Raises ValueError if arrays of a file have more bytes, as float32, than its size allows: views of one storage."""
    found, count = 0, 0
    for array in arrays:
        found, count = found + array.size * np.dtype(np.float32).itemsize, count + 1
    limit = MAX_GROWTH * path.stat().st_size
    if found > limit or count > MAX_WEIGHTS:
        raise ValueError(
            f"its {count} weights have {found} bytes; allowed: {MAX_WEIGHTS} weights, and {limit} bytes for a file of its size"
        )
