"""Which streams the network serves next, and with how many frames.

Rules: no socket, no torch, no clock; time is passed in.

A stream is due as soon as a call for it is worth its cost: when a whole chunk has arrived, or its very first frames (so
that sound starts early), or its end, or when fewer frames have waited long enough (a client that stalls still hears what it
has sent). The due stream that was served longest ago comes first; those that can share its call join it.

Whether the network keeps pace is measured by a virtual clock for each stream (L. Zhang, VirtualClock, SIGCOMM 1990): a
chunk has to be done one chunk's duration after it fell due, or after the chunk before it had to be done, whichever is later.
So a client that sends far ahead, or stalls, makes no chunk late.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from glowd.daemon.engine.stream import EngineStream
from glowd.flow.vocoder import AnyVocoder

NEVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Streams that go through the network in one call, `frames` each."""

    streams: list[EngineStream]
    frames: int


class Scheduler:
    """The rule above, for one vocoder."""

    def __init__(
        self, vocoder: AnyVocoder, chunk_frames: int, max_chunk_frames: int, max_batch: int, max_wait_ms: float
    ) -> None:
        self.vocoder = vocoder
        self.chunk_frames, self.max_chunk_frames, self.max_batch = chunk_frames, max_chunk_frames, max_batch
        self.max_wait_ns = int(max_wait_ms * 1e6)
        self._configured = chunk_frames, self.max_wait_ns

    @property
    def chunk_ns(self) -> int:
        """Duration of the smallest chunk's sound."""
        return self._duration_ns(self.chunk_frames)

    def use_chunk_frames(self, chunk_frames: int) -> None:
        """Set the smallest chunk. If it is larger than configured, streams wait up to its duration for it to be complete."""
        configured_frames, configured_wait_ns = self._configured
        self.chunk_frames = chunk_frames
        is_larger = chunk_frames > configured_frames
        self.max_wait_ns = max(configured_wait_ns, self.chunk_ns) if is_larger else configured_wait_ns

    def next_batch(self, streams: Iterable[EngineStream], now_ns: int) -> Batch | None:
        """The call to make now, or None if no stream is due."""
        due = sorted((s for s in streams if self._due_at_ns(s) <= now_ns), key=lambda s: s.served_ns)
        if not due:
            return None
        # A stream that is alone may catch up in large chunks; several streams must not wait for that.
        limit = self.max_chunk_frames if len(due) == 1 else self.chunk_frames
        frames = self._ready(due[0], limit)
        assert frames is not None
        key = self.vocoder.key(due[0].inner, frames)
        same = [s for s in due if self._ready(s, limit) == frames and self.vocoder.key(s.inner, frames) == key]
        return Batch(same[: self.max_batch], frames)

    def wait_ns(self, streams: Iterable[EngineStream], now_ns: int) -> int | None:
        """Time until a stream falls due if nothing more arrives; None if none will."""
        times = [due for s in streams if (due := self._due_at_ns(s)) < NEVER]
        return max(0, min(times) - now_ns) if times else None

    def due_ns(self, stream: EngineStream, frames: int) -> int:
        """When the call that has just rendered `frames` could have been made, by the gateway's receipt of what it needed.

        It is a time of the gateway's clock, which on another machine is not that of the deadlines.

        A chunk that waits to be complete could not: that is configured. One that is larger than configured could have been
        made before. To be called once after each step.
        """
        configured_frames, configured_wait_ns = self._configured
        first_frames = min(frames, configured_frames)
        arrival = stream.arrival(stream.inner.frames_done - frames + first_frames + self.vocoder.look_ahead_frames)
        received_ns = arrival.gateway_ns if arrival else 0
        if stream.inner.ended:
            return max(received_ns, stream.ended_gateway_ns) if frames < configured_frames else received_ns
        return received_ns + (configured_wait_ns if frames < configured_frames else 0)

    def advance_deadline(self, stream: EngineStream, frames: int, end_ns: int) -> int:
        """Move the virtual clock over `frames` that were done at `end_ns`; returns how late they were, below 0: early.

        To be called once after each step. A stream that falls due just after a round of calls has begun is served in the
        next round. So while rounds stay within a chunk, nothing is done later than two chunks after it fell due; what is
        later than that is late.
        """
        trigger = stream.trigger(self.vocoder.look_ahead_frames)
        due_ns = max(trigger.engine_ns if trigger else 0, stream.ended_ns)
        if frames < self.chunk_frames and not stream.inner.ended and stream.deadline_ns:
            due_ns += self.max_wait_ns
        stream.deadline_ns = max(stream.deadline_ns, due_ns) + self._duration_ns(frames)
        return end_ns - stream.deadline_ns - self.chunk_ns

    def _duration_ns(self, frames: int) -> int:
        return frames * self.vocoder.hop * 1_000_000_000 // self.vocoder.rate_hz

    def _ready(self, stream: EngineStream, limit: int) -> int | None:
        return self.vocoder.ready_frames(stream.inner, limit)

    def _due_at_ns(self, stream: EngineStream) -> int:
        ready = self._ready(stream, self.max_chunk_frames)
        if ready is None:
            return NEVER
        if stream.inner.ended or ready >= self.chunk_frames or stream.inner.samples_out == 0:
            return 0
        return stream.arrivals[-1].engine_ns + self.max_wait_ns
