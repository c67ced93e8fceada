"""Audio formats of HTTP answers, made while the audio is still arriving.

Rules: samples in, bytes out; no socket. What is written before the end is known says "unknown" where a length belongs: a
player takes such a stream until it ends. soundfile (libsndfile) makes FLAC, MP3 and Opus.
"""

import os
import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

UNKNOWN_BYTES = 0xFFFFFFFF
"""In a WAV header: the length is not known yet."""
PIPE_BYTES = 1 << 16
BLOCK = 4096
"""Samples that are encoded at a time; what they become fits into a pipe."""


class Encoder(Protocol):
    """Samples of one answer to bytes; `add` for each chunk, then `end`."""

    def add(self, samples: Samples) -> bytes:
        """What these samples complete; the first call has the header."""
        ...

    def end(self) -> bytes:
        """The rest."""
        ...


class Raw:
    """Samples as they are, little-endian, after `header`."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def add(self, samples: Samples) -> bytes:
        """See Encoder."""
        header, self._header = self._header, b""
        return header + samples.astype("<i2").tobytes()

    def end(self) -> bytes:
        """See Encoder."""
        return self._header


class Encoded:
    """By libsndfile: `container` and `subtype` are its names.

    It writes into a pipe, because it then knows that it cannot go back and write lengths into its header.
    """

    def __init__(self, rate_hz: int, container: str, subtype: str) -> None:
        import soundfile

        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._file = soundfile.SoundFile(writing, "w", rate_hz, 1, subtype, format=container, closefd=True)

    def __del__(self) -> None:
        os.close(self._reading)

    def add(self, samples: Samples) -> bytes:
        """See Encoder."""
        return b"".join(map(self._written, np.split(samples, range(BLOCK, len(samples), BLOCK))))

    def _written(self, block: Samples) -> bytes:
        self._file.write(block)
        return self._new()

    def _new(self) -> bytes:
        try:
            return os.read(self._reading, PIPE_BYTES)
        except BlockingIOError:  # a block is not complete yet
            return b""

    def end(self) -> bytes:
        """See Encoder."""
        self._file.close()
        return self._new()


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """A format by its name in `response_format`; no container: raw samples, with a WAV header or without."""

    name: str
    content_type: str
    container: str = ""
    subtype: str = ""

    def encoder(self, rate_hz: int) -> Encoder:
        """A new encoder of mono audio."""
        if self.container:
            return Encoded(rate_hz, self.container, self.subtype)
        return Raw(wav_header(rate_hz) if self.name == "wav" else b"")


FORMATS = {
    known.name: known
    for known in (
        AudioFormat("mp3", "audio/mpeg", "MP3", "MPEG_LAYER_III"),
        AudioFormat("opus", "audio/ogg", "OGG", "OPUS"),
        AudioFormat("flac", "audio/flac", "FLAC", "PCM_16"),
        AudioFormat("wav", "audio/wav"),
        AudioFormat("pcm", "audio/pcm"),
    )
}


def wav_header(rate_hz: int) -> bytes:
    """Of 16-bit mono audio of unknown length."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", UNKNOWN_BYTES, b"WAVE") + fmt + struct.pack("<4sI", b"data", UNKNOWN_BYTES)
