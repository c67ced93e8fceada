"""Speaking through a running daemon, and keeping the audio that comes back over the socket."""

import threading
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from types import TracebackType
from typing import Any, Self

import numpy as np

from glowd.clients import Client
from glowd.clients.cli.mel_sources import at_speaking_pace
from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.flow.mel import Floats, MelFormat
from tests.harness.waiting import WAIT_S

HOP = 256


class AudioReader:
    """Within its `with`, a thread that reads the audio of a stream's utterance to its end."""

    def __init__(self, stream: Stream) -> None:
        self.has_audio = threading.Event()
        self.chunks: list[wire.Audio] = []
        self.arrived_s: list[float] = []
        """When each of them came."""
        self._thread = threading.Thread(target=self._read, args=(stream,))

    def _read(self, stream: Stream) -> None:
        for chunk in stream.audio(WAIT_S):
            self.chunks.append(chunk)
            self.arrived_s.append(time.monotonic())
            self.has_audio.set()

    @property
    def samples(self) -> Floats:
        """All audio so far, [T]."""
        return np.concatenate([np.zeros(0, np.float32), *(chunk.payload for chunk in self.chunks)])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._thread.join(WAIT_S)


def split(mel: Floats, sizes: Iterable[int]) -> Iterator[Floats]:
    """The frames in chunks of these sizes, over and over."""
    at = 0
    for size in cycle(sizes):
        if at >= len(mel):
            return
        yield mel[at : at + size]
        at += size


def send_all(stream: Stream, mel: Floats, sizes: Iterable[int] = (8,), realtime: bool = False) -> None:
    """Send frames in chunks, at once or at the pace of speech."""
    chunks = split(mel, sizes)
    for chunk in at_speaking_pace(chunks, MelFormat()) if realtime else chunks:
        stream.send(chunk, WAIT_S)


def speak(
    client: Client, mel: Floats, sizes: Iterable[int] = (8,), *, realtime: bool = False, **options: Any
) -> tuple[Floats, wire.Played]:
    """Speak an utterance to its end: its audio [T], and what the daemon says of its end. `options`: see Client.open."""
    with client.open(**{"sinks": ["socket"], **options}) as stream, AudioReader(stream) as reader:
        send_all(stream, mel, sizes, realtime)
        played = stream.wait_played(WAIT_S)
    assert isinstance(played, wire.Played) and played.total_samples == len(mel) * HOP == len(reader.samples)
    return reader.samples, played
