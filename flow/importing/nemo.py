"""NeMo's archives (.nemo): a tar, packed by gzip or not, with a configuration and the weights that torch.save wrote.

Rules: nothing is unpacked to disk, and no name of the archive is used as a path. A packed archive may unpack to MAX_GROWTH times
its size. The result is what a file of DeepLearningExamples holds: {'state_dict', 'config'}, with NVIDIA's names.
"""

import mmap
import re
import tarfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from glowd.flow.recognition.archives import NEMO_CONFIG, NEMO_WEIGHTS
from glowd.flow.torchfile.reader import CheckpointFileError, read_pt_memory

MAX_GROWTH = 4
LEAST_LIMIT_BYTES = 1 << 20
MAX_CONFIG_BYTES = 64 << 10
MAX_MEMBERS = 256
MEL_NAMES = {
    "sample_rate": "sampling_rate", "n_fft": "filter_length", "n_window_stride": "hop_length", "n_window_size": "win_length",
    "lowfreq": "mel_fmin", "highfreq": "mel_fmax", "log_zero_guard_value": "log_floor",
}  # fmt: skip
"""The names of a preprocessor's values, and those of NVIDIA's config.json (mel_source.py)."""
NETWORK_NAMES = {"n_wn_channels": "n_channels", "n_wn_layers": "n_layers", "wn_kernel_size": "kernel_size"}
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def read_nemo(path: Path) -> dict[str, Any]:
    """Weights and configuration of an archive. Raises CheckpointFileError, UnsafeCheckpoint, OSError."""
    content = _content(path)
    members = _members(content)
    if NEMO_WEIGHTS not in members:
        raise CheckpointFileError(f"a NeMo archive without {NEMO_WEIGHTS}: cut off, or not of a trained model")
    weights = read_pt_memory(members[NEMO_WEIGHTS])
    return {"state_dict": weights, "config": _hints(bytes(members.get(NEMO_CONFIG, b"")[:MAX_CONFIG_BYTES]))}


def _content(path: Path) -> memoryview:
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if bytes(mapped[:2]) != b"\x1f\x8b":
        return mapped
    limit, unpacker = max(LEAST_LIMIT_BYTES, MAX_GROWTH * len(mapped)), zlib.decompressobj(31)
    try:
        content = unpacker.decompress(mapped, limit)
    except zlib.error as error:
        raise CheckpointFileError(f"a damaged gzip file: {error}") from error
    if not unpacker.eof:
        raise CheckpointFileError(f"a gzip file that is cut off, or unpacks to more than {limit} bytes for its size")
    return memoryview(content)


def _members(content: memoryview) -> dict[str, memoryview]:
    """The plain files of a tar by their last names."""
    found = dict[str, memoryview]()
    try:
        with tarfile.open(fileobj=_as_file(content), mode="r:") as archive:
            for member, _ in zip(archive, range(MAX_MEMBERS), strict=False):
                end = member.offset_data + member.size
                if member.isreg() and not member.issparse() and end <= len(content):
                    found[PurePosixPath(member.name).name] = content[member.offset_data : end]
    except (tarfile.TarError, ValueError, OSError, RecursionError) as error:
        raise CheckpointFileError(f"a tar that is cut off or damaged: {error}") from error
    return found


def _as_file(content: memoryview) -> Any:
    """A mapped file is a file already; what was unpacked is in memory anyway."""
    return content.obj if isinstance(content.obj, mmap.mmap) else BytesIO(content)


def _hints(text: bytes) -> dict[str, Any]:
    """What the configuration says of mels and network, by NVIDIA's names."""
    try:
        root = yaml.safe_load(text.decode("utf-8")) if text else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointFileError(f"its {NEMO_CONFIG} cannot be read ({type(error).__name__})") from error
    root = root if isinstance(root, dict) else {}
    mels, network = (_table(root, name) for name in ("preprocessor", "waveglow"))
    if mels.get("mag_power", 1) != 1:
        raise CheckpointFileError(
            f"its mels are magnitudes to the power of {mels['mag_power']}; glowd's voices read magnitudes"
        )
    hints = {theirs: mels.get(name) for name, theirs in MEL_NAMES.items() if name in mels}
    if hints.get("mel_fmax", 0) is None and isinstance(rate := hints.get("sampling_rate"), int | float):
        hints["mel_fmax"] = rate / 2  # NeMo's null is all there is
    return hints | {NETWORK_NAMES.get(name, name): value for name, value in network.items() if isinstance(name, str)}


def _table(root: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of the configuration, of older files under its `params`, with its references to others resolved."""
    part = root.get(name)
    part = part.get("params", part) if isinstance(part, dict) else {}
    return {key: _resolved(value, root) for key, value in part.items()} if isinstance(part, dict) else {}


def _resolved(value: Any, root: Mapping[str, Any], depth: int = 4) -> Any:
    if not isinstance(value, str) or not (found := _REFERENCE.fullmatch(value)):
        return value
    target: Any = root
    for step in found[1].split("."):
        target = target.get(step) if isinstance(target, dict) else None
    return _resolved(target, root, depth - 1) if depth else None
