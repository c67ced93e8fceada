"""Where glowctl's frames come from: recordings and mel files. Of texts: clients/upstream/.

Rules: no socket. Frames are [L, M] float32: of a recording natural logs in the voice's own mel format, of a mel file as they
are. A fault of a user's file is a SourceError. soundfile and soxr are imported when they are needed.
"""

import codecs
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from glowd.clients.mel_arrays import as_frames
from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.recordings import RecordingError, read_audio

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")
SUFFIXES = (*AUDIO_SUFFIXES, ".npy", ".npz", ".pt")


class SourceError(Exception):
    """This file or text cannot be turned into frames."""


def mel_of_file(path: Path, mel_format: MelFormat, bins: int = 0) -> Floats:
    """The frames [L, M] of a recording (any rate, mixed to mono), or of a saved mel. Raises SourceError.

    `bins`: the bands of a saved mel; 0: those of `mel_format`.
    """
    bins = bins or mel_format.n_mels
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(f"{path}: unknown suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}")
    try:
        if suffix in AUDIO_SUFFIXES:
            audio = read_audio(path, mel_format.rate_hz)
            return log_mel(audio, mel_format) if len(audio) else no_frames(mel_format)
        if suffix in (".npy", ".npz"):
            return as_frames(array_of_numpy(path), bins)
        return as_frames(array_of_pt(path), bins, bins_first=True)
    except RecordingError as error:
        raise SourceError(str(error)) from error
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def array_of_numpy(path: Path) -> Any:
    """The array in a .npy, or in a .npz the only one or the one under "mel"."""
    from glowd.flow.recognition.kinds import recognise
    from glowd.flow.torchfile.numpy_files import CheckpointFileError, read_npy, read_npz

    kind = recognise(path)
    if kind.name not in ("npy", "npz"):
        raise SourceError(f"it is {kind.instead_of('a file of numpy')}")
    try:
        arrays = {"mel": read_npy(path)} if kind.name == "npy" else read_npz(path)
    except CheckpointFileError as error:
        raise SourceError(str(error)) from error
    if "mel" not in arrays and len(arrays) != 1:
        raise SourceError(f"contains {', '.join(arrays) or 'nothing'}; expected one array, or one under 'mel'")
    return arrays["mel" if "mel" in arrays else next(iter(arrays))]


def array_of_pt(path: Path) -> Any:
    """The array in a PyTorch file: alone, the only one of a list, or under "mel" in a map."""
    from glowd.flow.torchfile.reader import CheckpointFileError, array_of, read_pt

    try:
        value = read_pt(path)
    except CheckpointFileError as error:
        raise SourceError(str(error).removeprefix(f"{path}: ")) from error
    if isinstance(value, dict):
        value = value.get("mel", next(iter(value.values())) if len(value) == 1 else value)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if (array := array_of(value)) is None:
        raise SourceError(f"contains a {type(value).__name__}; expected an array, or a map with an array under 'mel'")
    return array


def no_frames(mel_format: MelFormat) -> Floats:
    """The mel [0, M] of nothing."""
    return np.zeros((0, mel_format.n_mels), np.float32)


def arriving_text(file: IO[bytes]) -> Iterator[str]:
    """The text of a pipe or terminal, in UTF-8, as it comes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := file.read1(1 << 12):  # type: ignore[attr-defined]  # IO does not have it, every binary file does
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def in_chunks(parts: Iterator[Floats], frames: int) -> Iterator[Floats]:
    """The same frames in chunks of `frames`; the last one may be shorter."""
    rest: Floats | None = None
    for part in parts:
        rest = part if rest is None else np.concatenate([rest, part])
        while len(rest) >= frames:
            yield rest[:frames]
            rest = rest[frames:]
    if rest is not None and len(rest):
        yield rest


def at_speaking_pace(chunks: Iterator[Floats], mel_format: MelFormat) -> Iterator[Floats]:
    """The same chunks, each at the time at which its first frame is spoken, or later."""
    began_s, frames = time.monotonic(), 0
    for chunk in chunks:
        due_s = began_s + frames * mel_format.hop / mel_format.rate_hz
        time.sleep(max(0.0, due_s - time.monotonic()))
        yield chunk
        frames += len(chunk)
