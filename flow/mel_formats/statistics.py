"""Files in which toolkits keep the numbers that their mels are normalised by.

Rules: numpy only, and h5py where it is installed and asked for; nothing in a file is run. What a file can cause is a
StatisticsError in words.

    .npz   ESPnet: count, sum, sum_square;  others: mean and std or scale
    .npy   ParallelWaveGAN, PaddleSpeech: [2, bands], mean above scale
    .json  mean and std, or mel_mean and mel_std (Matcha-TTS)
    .h5    ParallelWaveGAN: mean, scale
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEANS, DEVIATIONS = ("mean", "mel_mean", "offset"), ("std", "scale", "mel_std", "stddev")
MAX_BYTES = 1 << 20


class StatisticsError(ValueError):
    """A file that does not hold a mean and a standard deviation."""


def read_statistics(path: Path) -> dict[str, Any]:
    """The keys `scale` (standard deviation) and `offset` (mean) of a mel format. Raises StatisticsError."""
    readers = {".npz": _npz, ".npy": _npy, ".json": _json, ".h5": _h5, ".hdf5": _h5}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        kind = path.suffix or "a file without a suffix"
        raise StatisticsError(f"{path}: {kind} is not read; allowed: {', '.join(readers)}")
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise StatisticsError(f"{size} bytes are too many for the numbers of some bands; at most {MAX_BYTES}")
        offset, scale = reader(path)
        return {"scale": _numbers(scale, "standard deviation", positive=True), "offset": _numbers(offset, "mean")}
    except OSError as error:
        raise StatisticsError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError) as error:
        raise StatisticsError(f"{path}: {error}") from error


def _npz(path: Path) -> tuple[Any, Any]:
    with np.load(path, allow_pickle=False) as file:
        table = {name: file[name] for name in file.files}
    if {"count", "sum", "sum_square"} <= table.keys():
        mean = table["sum"] / table["count"]
        variance = table["sum_square"] / table["count"] - mean * mean
        return mean, np.sqrt(np.maximum(variance, 1e-20))
    return _of_table(table)


def _npy(path: Path) -> tuple[Any, Any]:
    try:
        values = np.load(path, allow_pickle=False)
    except ValueError:
        raise StatisticsError(
            "this .npy is a pickle (Coqui's scale_stats.npy is) and is not read; write it again: "
            "s = numpy.load(FILE, allow_pickle=True).item(); numpy.savez('stats.npz', mean=s['mel_mean'], std=s['mel_std'])"
        ) from None
    if values.ndim != 2 or len(values) != 2:
        raise StatisticsError(
            f"has shape {list(values.shape)}; allowed: [2, bands], the mean above the standard deviation"
        )
    return values[0], values[1]


def _json(path: Path) -> tuple[Any, Any]:
    table = json.loads(path.read_text("utf-8"))
    if not isinstance(table, dict):
        raise StatisticsError("is no map with mean and std")
    return _of_table(table)


def _h5(path: Path) -> tuple[Any, Any]:
    try:
        import h5py  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise StatisticsError("reading .h5 takes h5py: pip install h5py; or write the numbers to a .npz") from None
    with h5py.File(path) as file:
        return _of_table({name: file[name][()] for name in file})


def _of_table(table: Mapping[str, Any]) -> tuple[Any, Any]:
    means, deviations = ([table[key] for key in keys if key in table] for keys in (MEANS, DEVIATIONS))
    if not means or not deviations:
        raise StatisticsError(f"holds {', '.join(sorted(table)) or 'nothing'}; it needs mean and std")
    return means[0], deviations[0]


def _numbers(values: Any, what: str, positive: bool = False) -> float | list[float]:
    numbers: NDArray[np.float64] = np.squeeze(np.asarray(values, np.float64))
    if numbers.ndim > 1 or not numbers.size:
        raise StatisticsError(f"the {what} has shape {list(numbers.shape)}; allowed: a number, or one for each band")
    if not np.isfinite(numbers).all() or (positive and numbers.min() <= 0):
        raise StatisticsError(
            f"the {what} reaches {numbers.min():g}; allowed: finite numbers{', above 0' if positive else ''}"
        )
    return float(numbers) if numbers.ndim == 0 else [float(number) for number in numbers]
