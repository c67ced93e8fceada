"""The sending half of one stream: frames, credit, generations and refusals, without I/O.

Rules: frames leave only within credit, in chunks of at most `max_chunk_frames`; `seq` and `first_frame` have no gaps.
What was sent stays here until the daemon's credit shows that it was used, so that it can be sent again after a refusal.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from glowd.clients.errors import is_content_error
from glowd.daemon import wire
from glowd.daemon.wire import Array, Code, Error


@dataclass(slots=True)
class Chunk:
    """Frames that were sent. payload: [frames, bins]."""

    seq: int
    first_frame: int
    payload: Array

    @property
    def end_frame(self) -> int:
        return self.first_frame + len(self.payload)


@dataclass(slots=True)
class Outgoing:
    """One generation's frames on their way out."""

    stream: str
    generation: int
    credit: int
    max_chunk_frames: int
    dtype: str = "f32"
    seq: int = 0
    next_frame: int = 0
    backlog: deque[Array] = field(default_factory=deque)
    sent: deque[Chunk] = field(default_factory=deque)
    end_wanted: bool = False
    end_sent: bool = False
    _window: int = 0
    _granted: int = 0
    _stale: int = 0
    _rewound_to: int = -1

    def __post_init__(self) -> None:
        self._window = self._granted = self.credit

    @property
    def started(self) -> bool:
        """Whether this generation has frames."""
        return bool(self.next_frame or self.backlog)

    def grant(self, frames: int) -> None:
        """More credit. The first grant of a generation is its window: what lies more than that behind was used."""
        if self._window == 0:
            self._window = frames
        self.credit += frames
        self._granted += frames
        used_frames = self._granted - self._window
        while self.sent and self.sent[0].end_frame <= used_frames:
            self.sent.popleft()

    def due(self, now_ns: Callable[[], int]) -> Iterator[wire.Message]:
        """What may be sent now."""
        while self.backlog and self.credit > 0:
            frames = min(len(self.backlog[0]), self.credit, self.max_chunk_frames)
            yield self._take(frames, now_ns())
        if self.end_wanted and not self.end_sent and not self.backlog:
            self.end_sent = True
            yield wire.End(self.stream, self.generation, self.next_frame)

    def _take(self, frames: int, now_ns: int) -> wire.Message:
        head = self.backlog[0]
        chunk = Chunk(self.seq, self.next_frame, head[:frames])
        if frames == len(head):
            self.backlog.popleft()
        else:
            self.backlog[0] = head[frames:]
        self.sent.append(chunk)
        self.seq, self.next_frame, self.credit = self.seq + 1, chunk.end_frame, self.credit - frames
        return wire.mel_message(
            self.stream, self.generation, chunk.seq, chunk.first_frame, chunk.payload,
            dtype=self.dtype, t_client_ns=now_ns,
        )  # fmt: skip

    def is_echo(self, error: Error) -> bool:
        """Whether this answers a message that was under way behind a refused one: it needs nothing more."""
        if not self._stale or error.code != Code.GAP or error.expected_frame not in (-1, self._rewound_to):
            return False
        self._stale -= 1
        return True

    def refused(self, error: Error) -> bool:
        """Go back to the frame that the daemon wants. False: it must be told to the user, the frames are dropped."""
        again = [chunk for chunk in self.sent if chunk.first_frame >= error.expected_frame]
        known = error.expected_frame == (again[0].first_frame if again else self.next_frame)
        hopeless = not known or not again or is_content_error(error)
        self._rewind(error, again)
        if hopeless:
            self.backlog.clear()
            self.end_wanted = False
        return not hopeless

    def _rewind(self, error: Error, again: list[Chunk]) -> None:
        if not again:
            return
        self._stale, self._rewound_to = len(again) - 1 + self.end_sent, error.expected_frame
        self.seq, self.next_frame = again[0].seq, again[0].first_frame
        self.credit = 0 if error.code == Code.OVER_CREDIT else self.credit + sum(len(c.payload) for c in again)
        self.backlog.extendleft(chunk.payload for chunk in reversed(again))
        for _ in again:
            self.sent.pop()
        self.end_sent = False


def as_mel(mel: object, bins: int) -> Array:
    """Frames as float32 [frames, bins]; one frame may come as [bins]. Raises ValueError for anything else."""
    values = np.asarray(mel, dtype=np.float32)
    if values.ndim == 1:
        values = values[np.newaxis]
    if values.ndim != 2 or values.shape[1] != bins:
        turned = "; it seems to be [bins, frames]: transpose it" if values.ndim == 2 and len(values) == bins else ""
        raise ValueError(f"a mel has shape [frames, {bins}]; this one has {list(np.shape(values))}{turned}")
    if values.size and not (np.isfinite(values).all() and np.abs(values).max() <= wire.MEL_HIGH):
        raise ValueError(f"a mel holds finite natural logs, {wire.MEL_LOW:g}..{wire.MEL_HIGH:g}; these do not")
    return np.array(values)  # a copy: the caller may go on with its own
