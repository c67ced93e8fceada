"""espeak-ng: many languages, robotic, at once. Its samples are read while it makes them.

Rules: the program `espeak-ng` is run for each speech; it is asked for a WAV on standard output.
"""

import io
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from glowd.clients.upstream.interface import Manner, Speech
from glowd.clients.upstream.pcm import mel_of_pcm
from glowd.clients.upstream.processes import Output, output_of
from glowd.flow.mel import Floats, MelFormat

PATIENCE_S = 60.0
WORDS_PER_MINUTE = 175
"""espeak-ng's own pace."""
PITCH, PITCH_PER_SEMITONE = 50, 4
"""espeak-ng's pitch is a number from 0 to 99; four of them are about a semitone."""
BLOCK_BYTES = 1 << 14
MISSING = "espeak-ng is not installed; on Debian or Ubuntu: sudo apt-get install espeak-ng"


@dataclass(frozen=True, slots=True)
class Espeak:
    """The voice `voice` of espeak-ng; `espeak-ng --voices` lists them."""

    voice: str = "en-us"
    name: str = "espeak-ng"

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        """The text in the format `wanted`."""
        return Speech(wanted.to_dict(), self._frames(text, wanted, manner))

    def _frames(self, text: str, wanted: MelFormat, manner: Manner) -> Generator[Floats, None, None]:
        pitch = min(99, max(0, round(PITCH + PITCH_PER_SEMITONE * manner.semitones)))
        command = [
            "espeak-ng", "--stdin", "--stdout", "-b", "1", "-v", self.voice,
            "-s", str(round(WORDS_PER_MINUTE * manner.rate)), "-p", str(pitch),
        ]  # fmt: skip
        about = f"espeak-ng (voice {self.voice})"
        with output_of(command, text, patience_s=PATIENCE_S, about=about, missing=MISSING) as output:
            if output.peek(1):
                rate_hz = read_wav_header(output)
                yield from mel_of_pcm(blocks(output), rate_hz, wanted)


def blocks(output: Output) -> Iterator[Floats]:
    """The 16-bit samples of a stream, as they come, from -1 to 1."""
    odd = b""
    while data := output.read1(BLOCK_BYTES):
        data, odd = odd + data, b""
        if len(data) % 2:
            data, odd = data[:-1], data[-1:]
        yield np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def read_wav_header(file: io.BufferedIOBase) -> int:
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
