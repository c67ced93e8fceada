"""What an engine's process does for each chunk beside the network: messages, scheduler, accounts. Measured when it starts.

Rules: no socket, no torch. On a CPU it is a few percent of a chunk. On a fast GPU it is most of it: there a call for 500 streams
takes some milliseconds, and the messages for them take tens.
"""

import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.flow.mel import Floats
from glowd.flow.vocoder import BEGINNING, AnyVocoder, Origin, Stream, Vocoder

STREAMS, ROUNDS = 32, 6


class Silent(Vocoder[Stream]):
    """Silence in the format of another vocoder, which costs next to nothing."""

    def __init__(self, like: AnyVocoder) -> None:
        self.name, self.format, self.sigma = "silent", like.format, 0.0
        self.look_ahead_frames = self.history_frames = self.latency_samples = 0

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        """See Vocoder."""
        return Stream(seed, 0.0, self.format.n_mels, origin)

    def ready_frames(self, stream: Stream, limit: int) -> int | None:
        """See Vocoder."""
        return min(limit, stream.frames_in - stream.frames_done) or None

    def key(self, stream: Stream, frames: int) -> Hashable:
        """See Vocoder."""
        return frames

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        """See Vocoder."""
        for stream in streams:
            stream.rendered(frames, frames * self.hop)
        return [np.zeros(frames * self.hop, np.float32) for _ in streams]


def seconds_per_chunk(
    vocoder: AnyVocoder, chunk_frames: int, clock_s: Callable[[], float] = time.thread_time, streams: int = STREAMS
) -> float:
    """Seconds of the process for a chunk of a stream, without the network and the socket: the fastest of ROUNDS."""
    silent = Silent(vocoder)
    renderer = Renderer(silent, Scheduler(silent, chunk_frames, chunk_frames, streams, 0.0), ipc.encode)
    for key in range(streams):
        renderer.handle(ipc.Start(key=key, seed=key, first_frame=0))
    mel = np.zeros((chunk_frames, vocoder.format.n_mels), np.float32)
    return min(_round_s(renderer, mel, number, clock_s) for number in range(ROUNDS)) / streams


def _round_s(renderer: Renderer, mel: Floats, number: int, clock_s: Callable[[], float]) -> float:
    """A chunk for each stream: it arrives, is rendered, and its samples are made a message."""
    frames, bins = mel.shape
    arrived = [
        ipc.encode(ipc.Frames(key=key, first_frame=number * frames, frames=frames, bins=bins, mel=mel))
        for key in renderer.streams
    ]
    start_s = clock_s()
    for parts in arrived:
        renderer.handle(ipc.decode(parts))
    while renderer.step():
        pass
    return clock_s() - start_s
