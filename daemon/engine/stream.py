"""One stream in the engine: the vocoder's own stream, and when its frames came and are due.

Rules: plain state; the scheduler decides, the renderer acts.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from glowd.flow.vocoder import Stream


class Arrival(NamedTuple):
    """When frames came: the times of the message that brought the frames up to (not including) `end_frame`."""

    end_frame: int
    client_ns: int
    gateway_ns: int
    engine_ns: int


@dataclass(slots=True)
class EngineStream:
    """A stream by its `key` on the link. `inner` is the vocoder's stream. Owner: the engine's only thread."""

    key: int
    inner: Stream
    attempt: int = -1
    """Of the Start that opened it."""
    arrivals: deque[Arrival] = field(default_factory=deque)
    served_ns: int = 0
    """When it was last rendered."""
    ended_ns: int = 0
    """When its end arrived."""
    ended_gateway_ns: int = 0
    """When its end reached the gateway, by the gateway's clock, as of an Arrival; 0: not told."""
    deadline_ns: int = 0
    """When its last chunk was to be done (see scheduler.py)."""
    end_sent: bool = False
    has_diverged: bool = False

    def arrival(self, end_frame: int) -> Arrival | None:
        """The arrival that brought the frames before `end_frame`, or the newest one; None if nothing arrived."""
        found = (arrival for arrival in self.arrivals if arrival.end_frame >= end_frame)
        return next(found, self.arrivals[-1] if self.arrivals else None)

    def trigger(self, look_ahead_frames: int) -> Arrival | None:
        """The arrival that made the frames rendered so far possible, None if nothing arrived. Forgets older ones."""
        needed = self.inner.frames_done + look_ahead_frames
        while len(self.arrivals) > 1 and self.arrivals[0].end_frame < needed:
            self.arrivals.popleft()
        return self.arrivals[0] if self.arrivals else None
