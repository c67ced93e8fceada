"""The vocoder interface: mel frames in, samples out, for many streams at once; and the streams that run through it.

Rules: no torch, no socket. A `Stream` is explicit state with one owner, the caller that opened it. A `Vocoder` holds weights
and scratch memory, and renders any number of streams in one call. Offline rendering is the same calls on one stream.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from glowd.flow.mel import Floats, MelFormat


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream begins: at frame 0, or in the middle, to go on with what another one began."""

    frame: int = 0
    """The first one to be rendered, absolute."""
    lead_frames: int = 0
    """Frames before it, which are pushed first and only looked at."""
    phase: float | None = None
    """Of the source at that frame, in cycles, as `Stream.phase` had it; None: where the seed begins."""


BEGINNING = Origin()


class Stream:
    """One utterance: frames that were pushed, and a count of what has been rendered.

    Keeps the frames that a later chunk may still read (`keep_frames` before the first one not yet rendered; None: all).
    """

    phase = 0.0
    """Of its source where `frames_done` stands, in cycles; 0 without one."""

    def __init__(
        self, seed: int, sigma: float, n_mels: int, origin: Origin = BEGINNING, keep_frames: int | None = 0
    ) -> None:
        self.seed, self.sigma = seed, sigma
        self.first_frame = self.frames_done = origin.frame
        self.first_in = self.frames_in = origin.frame - origin.lead_frames
        self.samples_out = 0
        self.ended = False
        self._keep_frames = keep_frames
        self._mel = np.zeros((0, n_mels), np.float32)
        self._mel_begin = self.first_in

    def push(self, mel: Floats) -> None:
        """Append frames [n, M]. Raises ValueError on a wrong shape or after `end`."""
        mel = np.asarray(mel, np.float32)
        if mel.ndim != 2 or mel.shape[1] != self._mel.shape[1]:
            raise ValueError(f"mel frames must have shape [n, {self._mel.shape[1]}]; got {list(mel.shape)}")
        if self.ended:
            raise ValueError("the stream has ended; open another one")
        self._mel = np.concatenate([self._mel, mel])
        self.frames_in += len(mel)

    def end(self) -> None:
        """No more frames will come: what the look-ahead held back may be rendered."""
        self.ended = True

    @property
    def done(self) -> bool:
        """Whether every frame has been rendered."""
        return self.ended and self.frames_done == self.frames_in

    def frames(self, begin: int, end: int) -> Floats:
        """Frames begin ... end - 1 [n, M] by absolute index; they must still be held."""
        assert self._mel_begin <= begin <= end <= self.frames_in, (self._mel_begin, begin, end, self.frames_in)
        return self._mel[begin - self._mel_begin : end - self._mel_begin]

    def rendered(self, frames: int, samples: int) -> None:
        """Count `frames` more as rendered to `samples` samples, and drop frames that no later chunk reads."""
        self.frames_done += frames
        self.samples_out += samples
        if self._keep_frames is not None:
            begin = max(self._mel_begin, self.frames_done - self._keep_frames)
            self._mel, self._mel_begin = self._mel[begin - self._mel_begin :], begin


StreamT = TypeVar("StreamT", bound=Stream)


class Vocoder(ABC, Generic[StreamT]):
    """Mel frames to samples, for many streams at once. A vocoder renders streams of its own `open` only."""

    name: str
    format: MelFormat
    look_ahead_frames: int
    """Frames after a frame that must have arrived before it can be rendered."""
    history_frames: int
    """A stream re-opened this many frames early, where one of its steps ended, continues exactly as if it had never stopped."""
    lead_frames = 0
    """Frames before the first rendered one that it must then be given: the past that its windows read."""
    latency_samples: int
    """Samples of a rendered frame that come out only with the next one."""
    run_in_frames = 0
    """Frames that a stream must have rendered before its calls are of the kind that repeats."""
    whole_utterance = False
    """Whether nothing can be rendered before the end."""
    sigma: float

    @abstractmethod
    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> StreamT:
        """A new stream whose latents, and where there is a source its phase at frame 0, are those of `seed`."""

    @abstractmethod
    def ready_frames(self, stream: StreamT, limit: int) -> int | None:
        """Frames of the stream that one call to `step` could render now, at most `limit`; None if there is nothing to do.

        0 means that every frame has been rendered and `step` owes only samples that were waiting for the end.
        """

    @abstractmethod
    def key(self, stream: StreamT, frames: int) -> Hashable:
        """Streams whose keys are equal can be rendered by one call to `step`."""

    @abstractmethod
    def step(self, streams: Sequence[StreamT], frames: int) -> list[Floats]:
        """Render `frames` of each stream (all of one key): the new samples [t] of each, in order.

        Over a whole utterance a stream gets exactly frames * hop samples, whatever the chunks were.
        """

    def close(self, stream: StreamT) -> None:
        """Free what the vocoder holds for a stream. It must not be used again."""

    def shapes(self, max_batch: int, max_frames: int) -> list[tuple[int, int]]:
        """(batch, frames) of the calls that `warm_up` should make before the first stream."""
        return [(1, max_frames)]

    def warm_up(self, batch: int, frames: int) -> None:
        """Make a call of every kind once, so that the first listener does not wait for what only a first call does."""
        streams = [self.open(seed) for seed in range(batch)]
        for stream in streams:
            enough = self.run_in_frames + 3 * frames + self.look_ahead_frames
            stream.push(np.full((enough, self.format.n_mels), -5.0, np.float32))
        for ended in (False, True):
            for stream in streams:
                stream.ended = ended
            while (ready := self.ready_frames(streams[0], frames)) is not None:
                self.step(streams, ready)
        for stream in streams:
            self.close(stream)

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.format.hop

    @property
    def rate_hz(self) -> int:
        """Samples per second."""
        return self.format.rate_hz


AnyVocoder = Vocoder[Any]
"""For callers that give a vocoder its own streams and look at nothing else of them."""


def drain(vocoder: Vocoder[StreamT], stream: StreamT, limit: int) -> Iterator[Floats]:
    """Everything a stream can give now, in chunks of at most `limit` frames."""
    while (frames := vocoder.ready_frames(stream, limit)) is not None:
        yield vocoder.step([stream], frames)[0]


def render(
    vocoder: AnyVocoder, mel: Floats, seed: int = 0, chunk_frames: int = 16, sigma: float | None = None
) -> Floats:
    """A whole utterance, mel [L, M] -> samples [L * hop], through the same calls that stream."""
    stream = vocoder.open(seed, sigma=sigma)
    try:
        stream.push(mel)
        stream.end()
        return np.concatenate([np.zeros(0, np.float32), *drain(vocoder, stream, chunk_frames)])
    finally:
        vocoder.close(stream)
