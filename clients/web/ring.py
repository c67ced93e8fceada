"""Audio that waits for one listener: bounded in seconds, so that a page that sleeps costs nobody anything.

Rules: one event loop; no socket. What does not fit is dropped, oldest first, and what follows it says that there is a gap.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from glowd.daemon import wire
from glowd.daemon.wire.codec import to_s16

PIECE_S = 0.25
"""Longer messages are cut, so that credit is used evenly and little is lost at a time."""
LEAST_S = 0.005
"""A piece counts at least as this long: those without samples are bounded, too."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some samples of a generation, signed 16-bit. `last`: none follow. `gap`: samples before them were lost."""

    generation: int
    first_sample: int
    rate_hz: int
    data: bytes
    last: bool = False
    gap: bool = False

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.data) // 2

    @property
    def seconds(self) -> float:
        """How much of the ring it takes."""
        return max(self.samples / self.rate_hz, LEAST_S)


def pieces_of(audio: wire.Audio) -> list[Piece]:
    """The message in pieces of at most PIECE_S."""
    data, step = to_s16(audio.payload).tobytes(), max(1, int(PIECE_S * audio.rate_hz)) * 2
    pieces = [
        Piece(
            audio.generation,
            audio.first_sample + at // 2,
            audio.rate_hz,
            data[at : at + step],
            gap=audio.gap and not at,
        )
        for at in range(0, max(len(data), 1), step)
    ]
    return [*pieces[:-1], replace(pieces[-1], last=audio.last)]


class Ring:
    """The pieces that wait. `limit_s` may change at any time; it holds from the next `put` on."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.dropped_samples = limit_s, 0
        self._pieces: deque[Piece] = deque()
        self._seconds, self._lost = 0.0, False
        self._arrived = asyncio.Event()

    @property
    def seconds(self) -> float:
        """What waits."""
        return self._seconds

    def put(self, audio: wire.Audio) -> None:
        """Add a message, and drop what is too much."""
        for piece in pieces_of(audio):
            self._pieces.append(piece)
            self._seconds += piece.seconds
        while self._seconds > self.limit_s and len(self._pieces) > 1:
            self.dropped_samples += self._pop().samples
            self._lost = True
        self._arrived.set()

    def discard(self, generation: int) -> None:
        """Drop what waits of a generation, and of those before it."""
        while self._pieces and self._pieces[0].generation <= generation:
            self._pop()

    async def take(self) -> Piece:
        """The next piece; waits for one. For one task."""
        while not self._pieces:
            self._arrived.clear()
            await self._arrived.wait()
        piece, lost = self._pop(), self._lost
        self._lost = False
        return replace(piece, gap=piece.gap or lost)

    def _pop(self) -> Piece:
        piece = self._pieces.popleft()
        self._seconds = self._seconds - piece.seconds if self._pieces else 0.0
        return piece
