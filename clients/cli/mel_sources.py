"""Where glowctl's frames come from: recordings, mel files, and the speech of espeak-ng.

Rules: no socket. Frames are [L, M] float32: of a recording or a text natural logs in the voice's own mel format, of a
mel file as they are. A fault of a user's file or text is a SourceError. soundfile and soxr are imported when they are needed.
"""

import contextlib
import io
import shutil
import struct
import subprocess
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
ESPEAK_S = 60.0


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
    with contextlib.ExitStack() as stack:
        value = np.load(path, allow_pickle=False)
        if isinstance(value, np.ndarray):
            return value
        names = stack.enter_context(value).files
        if "mel" not in names and len(names) != 1:
            raise SourceError(f"contains {', '.join(names) or 'nothing'}; expected one array, or one under 'mel'")
        return value["mel" if "mel" in names else names[0]]


def array_of_pt(path: Path) -> Any:
    """The array in a PyTorch file: alone, the only one of a list, or under "mel" in a map."""
    from glowd.flow.torchfile.reader import CheckpointFileError, read_pt

    try:
        value = read_pt(path)
    except CheckpointFileError as error:
        raise SourceError(str(error).removeprefix(f"{path}: ")) from error
    if isinstance(value, dict):
        value = value.get("mel", next(iter(value.values())) if len(value) == 1 else value)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, np.ndarray):
        raise SourceError(f"contains a {type(value).__name__}; expected an array, or a map with an array under 'mel'")
    return value


def mel_of_text(text: str, espeak_voice: str, mel_format: MelFormat) -> Floats:
    """The frames [L, M] of espeak-ng's speech; none if there is nothing to say. Raises SourceError."""
    if shutil.which("espeak-ng") is None:
        raise SourceError("espeak-ng is not installed; on Debian or Ubuntu: sudo apt-get install espeak-ng")
    command = ["espeak-ng", "--stdin", "--stdout", "-b", "1", "-v", espeak_voice]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=ESPEAK_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"espeak-ng has not spoken {len(text)} characters within {ESPEAK_S:g} s") from error
    if done.returncode == 0 and not done.stdout:
        return no_frames(mel_format)
    try:
        return mel_of_wav(io.BytesIO(done.stdout), mel_format)
    except ValueError as error:
        output = done.stderr.decode(errors="replace").strip().splitlines()
        raise SourceError(f"espeak-ng failed (voice {espeak_voice}): {output[0] if output else error}") from error


def mel_of_wav(file: IO[bytes], mel_format: MelFormat) -> Floats:
    """The frames [L, M] of a mono 16-bit WAV, none of one too short for a frame. Raises ValueError for any other file."""
    rate_hz = read_wav_header(file)
    data = file.read()
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)
    samples = resampled(samples, rate_hz, mel_format.rate_hz)
    return log_mel(samples, mel_format) if len(samples) > mel_format.n_fft // 2 else no_frames(mel_format)


def no_frames(mel_format: MelFormat) -> Floats:
    """The mel [0, M] of nothing."""
    return np.zeros((0, mel_format.n_mels), np.float32)


def read_wav_header(file: IO[bytes]) -> int:
    """Read up to the samples; the rate in Hz. Raises ValueError for anything but a mono 16-bit WAV."""
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        raise ValueError("its output is not a WAV file")
    rate_hz = 0
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data" and rate_hz:
            return rate_hz
        body = file.read(min(size, 1 << 16))
        if kind == b"fmt " and len(body) >= 16:
            encoding, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", body[:16])
            if (encoding, channels, bits) != (1, 1, 16):
                raise ValueError(f"its output has {channels} channels of {bits} bits; expected one of 16")
    raise ValueError("its output ends before the samples")


def resampled(samples: Floats, from_hz: int, to_hz: int) -> Floats:
    """The recording [T] at another rate."""
    if from_hz == to_hz:
        return samples
    import soxr

    resampled: Floats = soxr.resample(samples, from_hz, to_hz)
    return resampled


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
