"""Writing audio that arrives in chunks: WAV files, raw samples on a pipe, a player on this machine.

Rules: no socket; standard library and numpy only. Chunks are placed by `first_sample`: a gap between two chunks is written
as silence, so that the length is right. A WAV file is claimed first, and has its name when it is complete
(flow/new_file.py).
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from glowd.clients.errors import GlowdError
from glowd.daemon.wire import Array, Audio, Flushed, Played
from glowd.daemon.wire.codec import to_s16
from glowd.flow import new_file
from glowd.flow.new_file import NameTakenError, NewFile

PLAYERS = (
    ("pw-play", "--raw", "--format=f32", "--rate={rate}", "--channels=1", "-"),
    ("paplay", "--raw", "--format=float32le", "--rate={rate}", "--channels=1"),
    ("aplay", "-q", "-t", "raw", "-f", "FLOAT_LE", "-c", "1", "-r", "{rate}"),
    ("play", "-q", "-t", "f32", "-r", "{rate}", "-c", "1", "-"),
)

PLAYER_END_S = 30.0
"""A player plays what it has, some seconds at most, before it ends."""


class Timeline:
    """Chunks of one utterance, placed by their index; the first chunk received begins it."""

    def __init__(self, write: Callable[[Array], object]) -> None:
        self._write = write
        self._next_sample: int | None = None

    def add(self, chunk: Audio) -> None:
        """Write silence for a gap before the chunk, then its samples that were not written before."""
        expected = chunk.first_sample if self._next_sample is None else self._next_sample
        if chunk.first_sample > expected:
            self._write(np.zeros(chunk.first_sample - expected, np.float32))
        written = max(0, expected - chunk.first_sample)
        if chunk.samples > written:
            self._write(chunk.payload[written:])
        self._next_sample = max(expected, chunk.first_sample + chunk.samples)


class UtteranceWriter:
    """Writes one utterance of all that a listener receives, from its first chunk on; `ended` after its last one."""

    def __init__(self, first: Audio, write: Callable[[Array], object]) -> None:
        self._key, self._timeline, self.ended = (first.stream, first.generation), Timeline(write), False
        self.add(first)

    def add(self, event: Audio | Played | Flushed) -> None:
        """Write audio of this utterance; ignore events of others."""
        if (event.stream, event.generation) != self._key:
            return
        if isinstance(event, Audio):
            self._timeline.add(event)
        self.ended = not isinstance(event, Audio) or event.last


def claim(path: Path, overwrite: bool = False) -> NewFile:
    """Claim the name of a file, before anything else is done for it. Raises GlowdError if that cannot be."""
    try:
        return new_file.claim_output(path, "audio", overwrite)
    except OSError as error:
        raise GlowdError(str(error)) from error


def claim_output(args: argparse.Namespace) -> AbstractContextManager[NewFile | None]:
    """The claimed file of --out; None if there is none, or it is standard output. Raises GlowdError."""
    if args.out and str(args.out) != "-":
        return claim(Path(args.out), args.overwrite)
    return contextlib.nullcontext()


class WavFile:
    """A 16-bit mono WAV file. Raises GlowdError if somebody has taken its name meanwhile.

    After an exception the file has what was written before it; `kept` is false if that is nothing.
    """

    def __init__(self, new: NewFile, rate_hz: int) -> None:
        self.samples, self.kept, self._new = 0, False, new
        self._wave = wave.open(new.file, "wb")  # noqa: SIM115 (closed by __exit__)
        self._wave.setparams((1, 2, rate_hz, 0, "NONE", ""))

    def write(self, samples: Array) -> None:
        """Append samples [T]; values outside -1..1 are clipped."""
        self._wave.writeframes(to_s16(samples).tobytes())
        self.samples += len(samples)

    def __enter__(self) -> "WavFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._wave.close()
        if kind is not None and not self.samples:
            self._new.discard()
            return
        try:
            self._new.publish()
        except NameTakenError as error:
            raise GlowdError(str(error)) from error
        self.kept = True


class RawOutput:
    """Raw float32 samples on standard output or into a player. Raises GlowdError when the reader has closed it."""

    def __init__(self, file: IO[bytes], process: "subprocess.Popen[bytes] | None" = None) -> None:
        self._file, self._process = file, process

    def write(self, samples: Array) -> None:
        """Write samples [T] at once."""
        try:
            self._file.write(np.ascontiguousarray(samples, "<f4").tobytes())
            self._file.flush()
        except BrokenPipeError as error:
            raise GlowdError("the player or pipe that receives the audio has closed") from error

    def __enter__(self) -> "RawOutput":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._file.close()
            try:
                self._process.wait(PLAYER_END_S)
            except subprocess.TimeoutExpired as error:
                self._process.kill()
                raise GlowdError(
                    f"the player has not ended within {PLAYER_END_S:g} s after the audio; it was killed"
                ) from error


def local_player(rate_hz: int) -> RawOutput:
    """The first of PLAYERS that is installed. Raises GlowdError if none is."""
    for command in PLAYERS:
        if shutil.which(command[0]):
            arguments = [part.format(rate=rate_hz) for part in command]
            process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=sys.stderr)
            assert process.stdin is not None, "it is a pipe"
            return RawOutput(process.stdin, process)
    names = ", ".join(command[0] for command in PLAYERS)
    raise GlowdError(f"no player is installed; install one of {names}, or use --out FILE, or --out - for a pipe")


def open_output(claimed: NewFile | None, target: str, rate_hz: int) -> WavFile | RawOutput:
    """Where `listen` writes: the file that was claimed, "-" for raw samples on standard output, "" for a player."""
    if claimed is not None:
        return WavFile(claimed, rate_hz)
    return RawOutput(sys.stdout.buffer) if target == "-" else local_player(rate_hz)
