"""Writing audio that arrives piece by piece: WAV files, raw samples on a pipe, a player on this machine.

Rules: no socket. Pieces are placed by `first_sample`: what is missing between two pieces is written as silence, so that
the length is right. A WAV file appears under its name only when it is complete.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from glowd.clients.errors import GlowdError
from glowd.daemon.wire import Array, Audio, Flushed, Played

PLAYERS = (
    ("pw-play", "--raw", "--format=f32", "--rate={rate}", "--channels=1", "-"),
    ("paplay", "--raw", "--format=float32le", "--rate={rate}", "--channels=1"),
    ("aplay", "-q", "-t", "raw", "-f", "FLOAT_LE", "-c", "1", "-r", "{rate}"),
    ("play", "-q", "-t", "f32", "-r", "{rate}", "-c", "1", "-"),
)


class Timeline:
    """Pieces of one utterance, placed by their index; the first one heard begins it."""

    def __init__(self, write: Callable[[Array], object]) -> None:
        self._write = write
        self._next_sample: int | None = None

    def add(self, piece: Audio) -> None:
        """The piece, after silence for what is missing before it. What was written already is not written again."""
        expected = piece.first_sample if self._next_sample is None else self._next_sample
        if piece.first_sample > expected:
            self._write(np.zeros(piece.first_sample - expected, np.float32))
        known = max(0, expected - piece.first_sample)
        if piece.samples > known:
            self._write(piece.payload[known:])
        self._next_sample = max(expected, piece.first_sample + piece.samples)


class Utterance:
    """One utterance among what a listener hears, from its first piece on; `over` when it has ended."""

    def __init__(self, first: Audio, write: Callable[[Array], object]) -> None:
        self._key, self._timeline, self.over = (first.stream, first.generation), Timeline(write), False
        self.add(first)

    def add(self, heard: Audio | Played | Flushed) -> None:
        """Write what belongs to the utterance; ignore what others say meanwhile."""
        if (heard.stream, heard.generation) != self._key:
            return
        if isinstance(heard, Audio):
            self._timeline.add(heard)
        self.over = not isinstance(heard, Audio) or heard.last


class WavFile:
    """A 16-bit mono WAV file. Raises GlowdError if it cannot be written. Nothing remains after an exception."""

    def __init__(self, path: Path, rate_hz: int) -> None:
        import soundfile

        self.path, self._part, self.samples = path, path.with_name(path.name + ".part"), 0
        try:
            self._file = soundfile.SoundFile(self._part, "w", rate_hz, 1, format="WAV", subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise GlowdError(f"cannot write {path}: {error.error_string}") from error

    def write(self, samples: Array) -> None:
        self._file.write(np.clip(samples, -1, 1))
        self.samples += len(samples)

    def __enter__(self) -> "WavFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._file.close()
        if kind is None or issubclass(kind, KeyboardInterrupt):
            os.replace(self._part, self.path)  # noqa: PTH105 (Path.replace says less about overwriting)
        else:
            self._part.unlink(missing_ok=True)


class Pipe:
    """Raw float32 samples into standard output or a player."""

    def __init__(self, file: IO[bytes], process: "subprocess.Popen[bytes] | None" = None) -> None:
        self._file, self._process = file, process

    def write(self, samples: Array) -> None:
        try:
            self._file.write(np.ascontiguousarray(samples, "<f4").tobytes())
            self._file.flush()
        except BrokenPipeError as error:
            raise GlowdError("the player or pipe that the audio goes to has closed") from error

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._file.close()
            self._process.wait()


def local_player(rate_hz: int) -> Pipe:
    """A player on this machine's sound device. Raises GlowdError if none is installed."""
    for command in PLAYERS:
        if shutil.which(command[0]):
            arguments = [part.format(rate=rate_hz) for part in command]
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=sys.stderr)
            assert process.stdin is not None, "it is a pipe"
            return Pipe(process.stdin, process)
    names = ", ".join(command[0] for command in PLAYERS)
    raise GlowdError(f"no player is installed (any of {names}); write a file with --out FILE, or --out - for a pipe")


def output(target: str, rate_hz: int) -> Any:
    """Where `listen` writes: a file, "-" for raw samples on standard output, "" for a player."""
    if target == "-":
        return Pipe(sys.stdout.buffer)
    return WavFile(Path(target), rate_hz) if target else local_player(rate_hz)
