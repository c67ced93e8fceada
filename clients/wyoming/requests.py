"""One text to speak, whole or still arriving.

Rules: no socket.
"""

import asyncio
from collections.abc import AsyncIterator

from glowd.clients.upstream import SentenceCutter


class Request:
    """Owner: the event loop. `voice`: of the daemon, "" for its default. `streams`: its text comes in chunks."""

    def __init__(self, voice: str, streams: bool) -> None:
        self.voice, self.streams = voice, streams
        self._chunks: asyncio.Queue[str | None] = asyncio.Queue()

    @classmethod
    def whole(cls, text: str, voice: str) -> "Request":
        """A text that is complete."""
        request = cls(voice, streams=False)
        request.push(text)
        request.end()
        return request

    def push(self, text: str) -> None:
        """More of the text; it may end within a word."""
        self._chunks.put_nowait(text)

    def end(self) -> None:
        """The text is complete."""
        self._chunks.put_nowait(None)

    async def sentences(self) -> AsyncIterator[str]:
        """Each sentence as soon as it is complete."""
        cutter = SentenceCutter()
        while (chunk := await self._chunks.get()) is not None:
            for sentence in cutter.push(chunk):
                yield sentence
        for sentence in cutter.end():
            yield sentence
