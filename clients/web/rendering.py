"""Frames in, audio out: one request's stream of the daemon.

Rules: frames are sent while audio is read, utterance by utterance. Whoever stops reading stops the stream: a barge-in.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from glowd.clients import errors
from glowd.clients.aio import AsyncClient, AsyncStream
from glowd.clients.cli.audio_output import Timeline
from glowd.clients.web.encoders import Samples
from glowd.daemon import wire
from glowd.daemon.wire import Array
from glowd.daemon.wire.codec import to_s16
from glowd.flow.mel import Floats

Parts = AsyncIterator[tuple[int, Floats]]
"""Frames [n, bins], each with the number of its utterance."""


async def rendered(
    client: AsyncClient, parts: Parts, *, voice: str, stated: dict[str, Any], rate_hz: int, seed: int = 0
) -> AsyncGenerator[Samples, None]:
    """The audio of the frames at `rate_hz`, as it is made. Raises GlowdError, and what `parts` raises."""
    stream = await client.open(
        voice=voice, sinks=["socket"], format=stated, audio_rate_hz=rate_hz, audio_dtype="s16", seed=seed
    )
    sending = _Sending(stream, parts)
    try:
        while await sending.more():
            async for samples in _read(stream, asyncio.create_task(sending.utterance())):
                yield samples
    except BaseException:  # the reader went away, too
        with contextlib.suppress(errors.GlowdError):
            await stream.flush()
        raise
    finally:
        await stream.close()


class _Sending:
    """The frames of a request, one utterance after the other."""

    def __init__(self, stream: AsyncStream, parts: Parts) -> None:
        self._stream, self._parts = stream, parts
        self._next: tuple[int, Floats] | None = None

    async def more(self) -> bool:
        """Whether there is another utterance. Waits for its first frames."""
        self._next = self._next or await anext(self._parts, None)
        return self._next is not None

    async def utterance(self) -> None:
        """Send the frames of the next one to its end."""
        assert self._next is not None, "there is one"
        number = self._next[0]
        while self._next is not None and self._next[0] == number:
            await self._stream.send(self._next[1])
            self._next = await anext(self._parts, None)
        await self._stream.end()


async def _read(stream: AsyncStream, sending: asyncio.Task[None]) -> AsyncGenerator[Samples, None]:
    """The audio of an utterance while it is sent. Raises what ended the sending."""
    audio, pieces = aiter(stream.audio()), list[Array]()
    timeline = Timeline(pieces.append)
    try:
        while chunk := await _next_unless_failed(audio, sending):
            timeline.add(chunk)
            for piece in pieces:
                yield to_s16(piece)
            pieces.clear()
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _next_unless_failed(audio: AsyncIterator[wire.Audio], sending: asyncio.Task[None]) -> wire.Audio | None:
    """The next chunk, None at the end. Raises what ended the sending, if that comes first."""
    reading = asyncio.ensure_future(anext(audio, None))
    try:
        await asyncio.wait({reading} if sending.done() else {reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        while not reading.done():
            sending.result()
            await asyncio.wait({reading})
        return reading.result()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
