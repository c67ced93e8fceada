"""What one page hears: a ring of audio, sent as the page takes it, and how far the page has come.

Rules: one event loop. The page's reports are the credit: at most AHEAD_S is on its way or waits in the page, so a page that
sleeps gets nothing more. Of a live stream a sleeping page keeps only the newest KEPT_ASLEEP_S, and so goes on with what is new.
"""

import asyncio
from collections.abc import Awaitable, Callable

from glowd.clients.web.messages import GAP, HEADER, LAST, Report
from glowd.clients.web.ring import Piece, Ring
from glowd.daemon import wire
from glowd.daemon.wire.liveness import AwakeClock, Silence

AHEAD_S = 2.0
ASLEEP_S = 3.0
"""A page that plays reports every 250 ms. Only the time counts in which audio for it comes."""
KEPT_ASLEEP_S = 1.0

SendBytes = Callable[[bytes], Awaitable[None]]


class Playback:
    """Audio for the request `id` of a page, at `rate_hz`. `live`: its source does not wait for the page."""

    def __init__(self, id: int, rate_hz: int, limit_s: float, live: bool, send: SendBytes) -> None:
        self.id, self.rate_hz, self.live = id, rate_hz, live
        self.report: Report | None = None
        """The newest one."""
        self.sent_all = asyncio.Event()
        """Set once `finish` was called and nothing waits any more."""
        self.ring = Ring(limit_s)
        self._limit_s, self._send = limit_s, send
        self._sent_samples = self._taken_samples = 0
        self._silence = Silence(AwakeClock())
        self._reported = asyncio.Event()
        self._finished = False

    def add(self, audio: wire.Audio) -> None:
        """Audio from the daemon."""
        asleep = self.live and self._silence.seconds > ASLEEP_S
        self.ring.limit_s = min(KEPT_ASLEEP_S, self._limit_s) if asleep else self._limit_s
        self.ring.put(audio)

    def finish(self) -> None:
        """No more audio will be added."""
        self._finished = True
        if not self.ring.seconds:
            self.sent_all.set()

    def on_report(self, report: Report) -> None:
        """The page has come so far."""
        self.report = report
        self._silence.end()
        self._taken_samples = max(self._taken_samples, min(report.taken, self._sent_samples))
        reported, self._reported = self._reported, asyncio.Event()  # a new one, for who waits for the next report
        reported.set()

    async def send_all(self) -> None:
        """Send what is added, as the page takes it, without end."""
        while True:
            piece = await self.ring.take()
            await self.wait_taken(self._sent_samples - AHEAD_S * self.rate_hz)
            self._sent_samples += piece.samples
            await self._send(packed(self.id, piece))
            if self._finished and not self.ring.seconds:
                self.sent_all.set()

    async def wait_taken(self, samples: float) -> None:
        """Wait until the page has taken so many samples."""
        while self._taken_samples < samples:
            await self._reported.wait()


def packed(id: int, piece: Piece) -> bytes:
    """A piece as the page reads it."""
    flags = (LAST if piece.last else 0) | (GAP if piece.gap else 0)
    return HEADER.pack(id, piece.generation, float(piece.first_sample), flags, piece.rate_hz) + piece.data
