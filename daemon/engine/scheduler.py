"""Which streams the network serves next, and with how many frames.

Rules: no socket, no torch, no clock of its own; time is passed in. An `Entry` is one stream in the engine.

A stream is due as soon as serving it is worth a call: a whole chunk has arrived, or its very first frames (so that the
first sound is early), or its end, or what did arrive has waited long enough (a client that stalls is not left with an
unspoken rest). Among due streams the one served longest ago comes first; those that can share its call join it.

Whether the network keeps pace is told by a virtual clock for each stream (L. Zhang, VirtualClock, SIGCOMM 1990): a chunk is
to be done one chunk's duration after it fell due, or after the chunk before it was to be done, whichever is later. So a
client that sends far ahead, or stalls, makes nobody late.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from glowd.flow.vocoder import Stream, Vocoder


class Arrival(NamedTuple):
    """When frames came: stamps of the message that brought the frames up to (not including) `end_frame`."""

    end_frame: int
    client_ns: int
    gateway_ns: int
    engine_ns: int


@dataclass(slots=True)
class Entry:
    """One stream in the engine. Owner: the engine's only thread."""

    key: int
    stream: Stream
    arrivals: deque[Arrival] = field(default_factory=deque)
    served_ns: int = 0
    ended_ns: int = 0
    deadline_ns: int = 0
    announced_end: bool = False
    ran_away: bool = False

    def trigger(self, look_ahead_frames: int) -> Arrival | None:
        """The arrival that made the frames rendered so far possible; None if nothing ever arrived. Forgets older ones."""
        needed = self.stream.frames_done + look_ahead_frames
        while len(self.arrivals) > 1 and self.arrivals[0].end_frame < needed:
            self.arrivals.popleft()
        return self.arrivals[0] if self.arrivals else None


@dataclass(frozen=True, slots=True)
class Batch:
    """Streams that go through the network in one call, `frames` each."""

    entries: list[Entry]
    frames: int


class Scheduler:
    """The rule above, for one vocoder."""

    def __init__(
        self, vocoder: Vocoder, chunk_frames: int, max_chunk_frames: int, max_batch: int, max_wait_ms: float
    ) -> None:
        self.vocoder = vocoder
        self.chunk_frames, self.max_chunk_frames, self.max_batch = chunk_frames, max_chunk_frames, max_batch
        self.max_wait_ns = int(max_wait_ms * 1e6)
        self._configured = chunk_frames, self.max_wait_ns

    @property
    def chunk_ns(self) -> int:
        """How long the smallest chunk sounds."""
        return self._sounds_ns(self.chunk_frames)

    def degrade(self, chunk_frames: int) -> None:
        """From now on the smallest chunk has so many frames, and streams wait as long as one sounds for it to be complete."""
        configured_frames, configured_wait_ns = self._configured
        self.chunk_frames = chunk_frames
        larger = chunk_frames > configured_frames
        self.max_wait_ns = max(configured_wait_ns, self.chunk_ns) if larger else configured_wait_ns

    def next_batch(self, entries: Iterable[Entry], now_ns: int) -> Batch | None:
        """The call to make now, or None if no stream is due."""
        due = sorted((e for e in entries if self._due_at_ns(e) <= now_ns), key=lambda e: e.served_ns)
        if not due:
            return None
        # A stream that is alone may catch up in large chunks; others must not wait for that.
        limit = self.max_chunk_frames if len(due) == 1 else self.chunk_frames
        frames = self._ready(due[0], limit)
        assert frames is not None
        key = self.vocoder.key(due[0].stream, frames)
        same = [e for e in due if self._ready(e, limit) == frames and self.vocoder.key(e.stream, frames) == key]
        return Batch(same[: self.max_batch], frames)

    def wait_ns(self, entries: Iterable[Entry], now_ns: int) -> int | None:
        """Time until some stream falls due if nothing more arrives; None if none will."""
        times = [due for e in entries if (due := self._due_at_ns(e)) < NEVER]
        return max(0, min(times) - now_ns) if times else None

    def late_ns(self, entry: Entry, frames: int, end_ns: int) -> int:
        """How late `frames` were that are done at `end_ns`; below 0: early. Call it once for each step, after the step.

        A stream that falls due just after a round of calls has begun is served in the next one. So while rounds keep
        within a chunk, nothing is done later than two chunks after it fell due; what is, is late.
        """
        trigger = entry.trigger(self.vocoder.look_ahead_frames)
        due_ns = max(trigger.engine_ns if trigger else 0, entry.ended_ns)
        if frames < self.chunk_frames and not entry.stream.ended and entry.deadline_ns:
            due_ns += self.max_wait_ns
        entry.deadline_ns = max(entry.deadline_ns, due_ns) + self._sounds_ns(frames)
        return end_ns - entry.deadline_ns - self.chunk_ns

    def _sounds_ns(self, frames: int) -> int:
        return frames * self.vocoder.hop * 1_000_000_000 // self.vocoder.rate_hz

    def _ready(self, entry: Entry, limit: int) -> int | None:
        return self.vocoder.ready_frames(entry.stream, limit)

    def _due_at_ns(self, entry: Entry) -> int:
        ready = self._ready(entry, self.max_chunk_frames)
        if ready is None:
            return NEVER
        if entry.stream.ended or ready >= self.chunk_frames or entry.stream.samples_out == 0:
            return 0
        return entry.arrivals[-1].engine_ns + self.max_wait_ns


NEVER = 2**63 - 1
