"""The sending half of one stream: frames, credit, and what to do after a rejection, without I/O.

Rules: frames leave only within credit, in chunks of at most `max_chunk_frames`; `seq` and `first_frame` have no gaps.
Sent frames are kept until the daemon's credit shows that it used them, so that they can be sent again after a rejection.
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
    """Frames that were sent in one message. payload: [frames, bins]."""

    seq: int
    first_frame: int
    payload: Array

    @property
    def end_frame(self) -> int:
        """The frame after the last one."""
        return self.first_frame + len(self.payload)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A `send` that was given up after some of its frames were sent: `frames` [n, bins], the first at `first_frame`."""

    generation: int
    first_frame: int
    frames: Array
    taken: int

    def is_retried_by(self, frames: Array, queue: "SendQueue") -> bool:
        """Whether these frames are the same, and nothing was sent in between."""
        follows = (queue.generation, queue.total_frames) == (self.generation, self.first_frame + self.taken)
        return follows and not queue.end_wanted and np.array_equal(frames, self.frames)


@dataclass(slots=True)
class SendQueue:
    """The frames of one generation: `backlog` waits for credit, `sent` may have to be sent again."""

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
    kept_from: int | None = None
    """The first frame that may have to be sent again when the daemon is lost; None: none will be."""
    _window: int = 0
    _granted: int = 0
    _follow_ons: int = 0
    _rewound_to: int = -1

    def __post_init__(self) -> None:
        self._window = self._granted = self.credit

    @property
    def started(self) -> bool:
        """Whether this generation has frames, or was ended without any."""
        return bool(self.next_frame or self.backlog or self.end_wanted)

    @property
    def total_frames(self) -> int:
        """Frames of this generation so far, sent or waiting."""
        return self.next_frame + sum(map(len, self.backlog))

    def grant(self, frames: int) -> None:
        """Add credit. The first grant of a generation is its window; frames further back than that have been used."""
        if self._window == 0:
            self._window = frames
        self.credit += frames
        self._granted += frames
        self._free()

    def keep_from(self, frame: int) -> None:
        """The frames before this one will not have to be sent again when the daemon is lost."""
        if self.kept_from is not None:
            self.kept_from = frame
            self._free()

    def _free(self) -> None:
        needed_from = self._granted - self._window if self.kept_from is None else self.kept_from
        while self.sent and self.sent[0].end_frame <= min(needed_from, self._granted - self._window):
            self.sent.popleft()

    def restart(self, first_frame: int, credit: int, heard_frames: int) -> None:
        """Begin again at a frame that is kept, in a daemon that knows nothing of this generation."""
        assert not self.sent or self.sent[0].first_frame <= first_frame, "its frames are kept"
        again = [chunk.payload[max(0, first_frame - chunk.first_frame) :] for chunk in self.sent]
        self.backlog.extendleft(payload for payload in reversed(again) if len(payload))
        self.sent.clear()
        self.seq, self.next_frame, self.credit = 0, min(first_frame, self.next_frame), credit
        self._window, self._granted = credit, credit + heard_frames
        self.end_sent, self._follow_ons, self._rewound_to = False, 0, -1

    def withdraw(self, first_frame: int) -> int:
        """Drop the frames from `first_frame` on that have not been sent; the number of those from there on that have."""
        unsent = self.total_frames - max(first_frame, self.next_frame)
        while unsent > 0:
            last = self.backlog.pop()
            if len(last) > unsent:
                self.backlog.append(last[:-unsent])
            unsent -= len(last)
        return max(0, self.next_frame - first_frame)

    @property
    def used_frames(self) -> int:
        """Frames that the daemon has used and delivered, as its credit shows."""
        return max(0, min(self._granted - self._window, self.next_frame))

    def sendable(self, now_ns: Callable[[], int]) -> Iterator[wire.Message]:
        """The messages that credit allows now; each counts as sent once it is taken."""
        while self.backlog and self.credit > 0:
            frames = min(len(self.backlog[0]), self.credit, self.max_chunk_frames)
            yield self._next_mel(frames, now_ns())
        if self.end_wanted and not self.end_sent and not self.backlog:
            self.end_sent = True
            yield wire.End(self.stream, self.generation, self.next_frame)

    def _next_mel(self, frames: int, now_ns: int) -> wire.Message:
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

    def is_follow_on(self, error: Error) -> bool:
        """Whether this rejects a message that was sent after a rejected one, before the client knew: ignore it."""
        if not self._follow_ons or error.code != Code.GAP or error.expected_frame not in (-1, self._rewound_to):
            return False
        self._follow_ons -= 1
        return True

    def resume_after(self, error: Error) -> bool:
        """Go back to the frame that the daemon expects. False if that cannot help: the frames are dropped."""
        again = [chunk for chunk in self.sent if chunk.first_frame >= error.expected_frame]
        known = error.expected_frame == (again[0].first_frame if again else self.next_frame)
        can_help = known and bool(again) and not is_content_error(error)
        self._rewind(error, again)
        if not can_help:
            self.backlog.clear()
            self.end_wanted = False
        return can_help

    def _rewind(self, error: Error, again: list[Chunk]) -> None:
        if not again:
            return
        self._follow_ons, self._rewound_to = len(again) - 1 + self.end_sent, error.expected_frame
        self.seq, self.next_frame = again[0].seq, again[0].first_frame
        self.credit = 0 if error.code == Code.OVER_CREDIT else self.credit + sum(len(c.payload) for c in again)
        self.backlog.extendleft(chunk.payload for chunk in reversed(again))
        for _ in again:
            self.sent.pop()
        self.end_sent = False
