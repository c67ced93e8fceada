"""Any program that is given a text on standard input and writes mels to standard output.

Rules: the program is run for each speech. It writes arrays as numpy.save does, one after the other, in the voice's own
format; or a first line of JSON that says what follows (a preset as text, or keys of open.format; {} is the voice's own) and
then float32 frames, little-endian, bands of a frame side by side.
"""

import math
import shlex
from collections.abc import Generator, Iterator
from tokenize import TokenError
from typing import Any

import numpy as np

from glowd.clients.mel_arrays import as_frames
from glowd.clients.upstream.interface import Manner, Speech, UpstreamError
from glowd.clients.upstream.pcm import at_rate
from glowd.clients.upstream.processes import Output, output_of
from glowd.clients.upstream.stated import bins_of
from glowd.daemon.wire.json_text import read_json
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.mel_formats.statement import statement_map

PATIENCE_S = 60.0
NUMPY = b"\x93NUMPY"
LONGEST_LINE = 1 << 16
BLOCK_BYTES, MOST_BYTES = 1 << 16, 1 << 28
BLOCK_FRAMES = 16


class Program:
    """A command line, such as "my-tts --fast"; no shell reads it. Raises UpstreamError if it cannot be read."""

    def __init__(self, command: str) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UpstreamError(f"the command {command!r} cannot be read: {error}") from error
        if not self._command:
            raise UpstreamError("no command is named; expected program:COMMAND, such as program:my-tts")
        self.name = self._command[0]

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text in the format that the program's first line states. Waits for that line."""
        written = self._written(text, wanted)
        stated = next(written)
        assert isinstance(stated, dict), "it comes first"
        return Speech(stated, at_rate(frames_only(written), manner.rate))

    def _written(self, text: str, wanted: MelFormat) -> "Generator[dict[str, Any] | Floats, None, None]":
        """The stated format, then the frames."""
        missing = f"there is no program {self.name}; name one that is installed, or its path"
        with output_of(self._command, text, patience_s=PATIENCE_S, about=self.name, missing=missing) as output:
            if output.peek(1)[:1] == NUMPY[:1]:
                yield wanted.to_dict()
                yield from saved_arrays(output, wanted.n_mels)
            else:
                stated = first_line(output)
                yield stated
                yield from raw_frames(output, bins_of(stated, wanted))


def frames_only(written: "Generator[dict[str, Any] | Floats, None, None]") -> Generator[Floats, None, None]:
    """What follows the stated format."""
    try:
        for frames in written:
            assert not isinstance(frames, dict), "the format is stated once"
            yield frames
    finally:
        written.close()


def first_line(output: Output) -> dict[str, Any]:
    """The format that the first line states. Raises ValueError."""
    line = output.readline(LONGEST_LINE)
    try:
        stated = read_json(line)
    except ValueError:
        stated = None
    if not isinstance(stated, str | dict):
        raise ValueError(
            f"its output begins with {line[:40]!r}; expected numpy's .npy, or a line of JSON that says what follows, "
            'such as "matcha" or {}'
        )
    return statement_map(stated)


def saved_arrays(output: Output, bins: int) -> Iterator[Floats]:
    """The arrays that numpy.save has written, one after the other. Raises ValueError."""
    while output.peek(1):
        frames = as_frames(saved_array(output), bins)
        if len(frames):
            yield frames


def saved_array(output: Output) -> Any:
    """One of them, read by blocks: numpy would make room for what a header promises. Raises ValueError."""
    try:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = readers[np.lib.format.read_magic(output)](output)
    except (KeyError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"numpy's header cannot be read: {type(error).__name__}") from None
    if dtype.kind not in "fiub" or any(length < 0 for length in shape):
        raise ValueError(f"frames must be numbers; the header says {dtype} and {shape!r:.80}")
    data, size = bytearray(), dtype.itemsize * math.prod(shape)
    if size > MOST_BYTES:
        raise ValueError(
            f"an array of {size} bytes, {shape!r:.80}, is too large; send at most {MOST_BYTES} in one, and several"
        )
    while len(data) < size and (block := output.read(min(BLOCK_BYTES, size - len(data)))):
        data += block
    if len(data) < size:
        raise ValueError(f"its output ends within an array: {len(data)} bytes of {size} {shape!r:.80}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def raw_frames(output: Output, bins: int) -> Iterator[Floats]:
    """Frames [n, bins] of float32 as they come. Raises ValueError if the last one is not whole."""
    frame_bytes, rest = 4 * bins, b""
    while data := output.read1(BLOCK_FRAMES * frame_bytes):
        data = rest + data
        whole = len(data) // frame_bytes * frame_bytes
        rest = data[whole:]
        if whole:
            yield np.frombuffer(data[:whole], "<f4").reshape(-1, bins).astype(np.float32)
    if rest:
        raise ValueError(f"its output ends within a frame: {len(rest)} bytes of {frame_bytes} (float32, {bins} bands)")
