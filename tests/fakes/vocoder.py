"""Vocoders for tests: no network, samples that tell which frame they belong to."""

from collections.abc import Hashable, Sequence

import numpy as np

from glowd.flow.mel import Floats, MelFormat
from glowd.flow.vocoder import BEGINNING, Origin, Stream, Vocoder

S = 1_000_000_000
MS = 1_000_000


class FakeVocoder(Vocoder):
    """One frame of look-ahead; the samples of frame f have the value f."""

    def __init__(self) -> None:
        self.name, self.format, self.sigma = "toy", MelFormat(), 1.0
        self.look_ahead_frames, self.history_frames, self.latency_samples = 1, 4, 0

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        return Stream(seed, 1.0, 80, origin)

    def ready_frames(self, stream: Stream, limit: int) -> int | None:
        ready = stream.frames_in - stream.frames_done - (0 if stream.ended else 1)
        return min(limit, ready) if ready > 0 else None

    def key(self, stream: Stream, frames: int) -> Hashable:
        return frames

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        out = [np.repeat(np.arange(s.frames_done, s.frames_done + frames, dtype=np.float32), 256) for s in streams]
        for stream, samples in zip(streams, out):
            stream.rendered(frames, len(samples))
        return out


class TimedVocoder(FakeVocoder):
    """A fake whose calls take time on a clock that only moves here: `call_ms`, and `frame_ms` for each frame."""

    def __init__(self, call_ms: float, frame_ms: float) -> None:
        super().__init__()
        self.call_ns, self.frame_ns, self.now_ns = int(call_ms * MS), int(frame_ms * MS), S
        self.cpu_ns = 0
        self.slowdown = 1.0
        """Calls take so many times as long on the clock, and as much processor time as before."""

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        cpu_ns = self.call_ns + self.frame_ns * frames * len(streams)
        self.cpu_ns += cpu_ns
        self.now_ns += int(self.slowdown * cpu_ns)
        return super().step(streams, frames)
