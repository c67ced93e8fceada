"""Recordings on disk: found in a folder, read from any format, rate and number of channels, written with 16 bits.

Rules: no torch, so that clients can use it. Samples are float32 in [-1, 1]. soundfile and soxr are imported when a file is
read or written.
"""

import io
from pathlib import Path

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.new_file import NewFile
from glowd.flow.recognition.kinds import recognise

SUFFIXES = (".flac", ".wav")
"""Of files that a folder is searched for, and of files that can be written."""
METADATA, WAVS = "metadata.csv", "wavs"
"""LJ Speech's own layout: lines `ID|text|...`, whose recordings are wavs/ID.wav."""


class RecordingError(ValueError):
    """A recording or a folder of recordings that cannot be used. The text names it and says what is allowed."""


def read_audio(path: Path, rate_hz: int) -> Floats:
    """A recording as samples [T] at `rate_hz`, mixed to mono. Raises RecordingError if it cannot be read."""
    import soundfile
    import soxr

    if not path.exists():
        raise RecordingError(f"{path}: no such file")
    try:
        samples, file_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        if path.is_file() and not (kind := recognise(path)).is_readable:
            raise RecordingError(f"{path} is {kind.instead_of('a recording')}") from error
        raise RecordingError(f"{path} is not a readable recording: {error}") from error
    mono: Floats = samples.mean(1)
    if file_rate_hz != rate_hz:
        mono = soxr.resample(mono, file_rate_hz, rate_hz, quality="VHQ")
    return mono


def read_speech(path: Path, rate_hz: int) -> Floats:
    """`read_audio` of a recording to train on or to measure with. Raises RecordingError if it is not finite or too loud."""
    samples = read_audio(path, rate_hz)
    if not np.isfinite(samples).all():
        raise RecordingError(f"{path} holds NaN or infinite samples")
    if len(samples) and (peak := float(np.abs(samples).max())) > 1:
        raise RecordingError(f"{path} peaks at {peak:.3g}; allowed: at most 1")
    return samples


def check_suffix(path: Path) -> None:
    """Raises RecordingError if no file of that name can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise RecordingError(f"{path} has an unknown suffix; allowed: {', '.join(SUFFIXES)}")


def write_audio(path: Path, samples: Floats, rate_hz: int) -> None:
    """Samples [T] to a .wav or .flac of ours, which is replaced. Raises RecordingError if it cannot be written."""
    check_suffix(path)
    try:
        with NewFile(path, replace=True) as new:
            write_samples(new, samples, rate_hz)
    except OSError as error:
        raise RecordingError(f"cannot write {path}: {error}") from error


def write_samples(new: NewFile, samples: Floats, rate_hz: int) -> None:
    """Samples [T] to a new .wav or .flac, clipped at full scale. Raises RecordingError if it cannot be written."""
    import soundfile

    encoded = io.BytesIO()  # into a file soundfile would not report what the file system refuses
    try:
        soundfile.write(encoded, samples.clip(-1, 1), rate_hz, subtype="PCM_16", format=new.path.suffix[1:].upper())
        new.file.write(encoded.getbuffer())
    except (soundfile.SoundFileError, OSError) as error:
        raise RecordingError(f"cannot write {new.path}: {error}") from error


def find_recordings(folder: Path) -> list[Path]:
    """Every .flac and .wav below a folder, sorted; in LJ Speech's own layout those that its metadata lists, in its order.

    Raises RecordingError if there are none.
    """
    if not folder.is_dir():
        raise RecordingError(f"data folder {folder} does not exist; give a folder with {' or '.join(SUFFIXES)} files")
    if (folder / METADATA).is_file() and (folder / WAVS).is_dir():
        return _listed(folder)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise RecordingError(f"data folder {folder} holds no recordings; expected {' or '.join(SUFFIXES)} files in it")
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        lines = (folder / METADATA).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{folder / METADATA} cannot be read: {error}") from error
    names = [line.split("|")[0].strip() for line in lines if line.strip()]
    if not names:
        raise RecordingError(f"{folder / METADATA} lists no recordings; expected lines such as LJ001-0001|text|text")
    return [folder / WAVS / f"{name}.wav" for name in names]
