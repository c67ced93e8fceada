"""One connection of a Wyoming client: its events, and the answers.

Rules: requests of a connection are answered one after the other, in a task of their own, so that a client that goes away
while it is spoken to is noticed. A text that streams is followed by the whole text, for servers that cannot stream: it is
ignored. Unknown events are no error.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeTextFormat,
    SynthesizeVoice,
)

from glowd.clients.errors import GlowdError
from glowd.clients.text_speaker import Speaker
from glowd.clients.upstream import UpstreamError
from glowd.clients.upstream.ssml import plain_text
from glowd.clients.wyoming.requests import Request
from glowd.daemon.wire.codec import to_s16

MAX_WAITING = 8
"""Requests of one connection that wait for those before them; further events are not read."""
FORMAT: dict[str, Any] = {"width": 2, "channels": 1}

log = logging.getLogger("glowd")


class Connection(AsyncEventHandler):
    """A client. `describe` answers what the service is."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        speaker: Speaker,
        describe: Callable[[], Awaitable[Info]],
    ) -> None:
        super().__init__(reader, writer)
        self._speaker, self._describe = speaker, describe
        self._requests: asyncio.Queue[Request] = asyncio.Queue(MAX_WAITING)
        self._arriving: Request | None = None
        self._working = asyncio.create_task(self._work())

    async def handle_event(self, event: Event) -> bool:
        """Take an event; true: go on with the connection."""
        if Describe.is_type(event.type):
            await self._say(await self._describe())
        elif Ping.is_type(event.type):
            await self._say(Pong(text=Ping.from_event(event).text))
        elif SynthesizeStart.is_type(event.type):
            start = SynthesizeStart.from_event(event)
            if self._arriving:  # else what comes after it would wait for its end
                self._arriving.end()
            self._arriving = Request(voice_name(start.voice), streams=True)
            await self._requests.put(self._arriving)
        elif SynthesizeChunk.is_type(event.type) and self._arriving:
            self._arriving.push(text_of(SynthesizeChunk.from_event(event).text))
        elif SynthesizeStop.is_type(event.type) and self._arriving:
            self._arriving.end()
            self._arriving = None
        elif Synthesize.is_type(event.type) and not self._arriving:
            await self._requests.put(whole(Synthesize.from_event(event)))
        return True

    async def disconnect(self) -> None:
        """The client has gone: stop speaking."""
        self._working.cancel()
        await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        """Answer the requests in order. The connection's end cancels this."""
        while True:
            request = await self._requests.get()
            try:
                await self._answer(request)
            except (GlowdError, UpstreamError) as error:
                log.warning("wyoming: cannot speak: %s", error)
                await self._say(Error(text=str(error)))
            await self._say(AudioStop())
            if request.streams:
                await self._say(SynthesizeStopped())

    async def _answer(self, request: Request) -> None:
        """The audio of a request, as it is made. Raises GlowdError or UpstreamError."""
        wanted = await self._speaker.format_of(request.voice)
        await self._say(AudioStart(rate=wanted.rate_hz, **FORMAT))
        spoken = self._speaker.speak(request.sentences(), request.voice, wanted)
        async with contextlib.aclosing(spoken) as audio:
            async for samples in audio:
                await self._say(AudioChunk(rate=wanted.rate_hz, audio=to_s16(samples).tobytes(), **FORMAT))

    async def _say(self, message: Eventable) -> None:
        await self.write_event(message.event())


def voice_name(voice: SynthesizeVoice | None) -> str:
    """The daemon's voice that a client wants, "" for the default."""
    return text_of((voice.name if voice else None) or "")


def whole(event: Synthesize) -> Request:
    """The request of a text that is complete."""
    is_ssml = event.text_format == SynthesizeTextFormat.SSML
    text = text_of(event.text)
    return Request.whole(plain_text(text) if is_ssml else text, voice_name(event.voice))


def text_of(value: object) -> str:
    """A text that can be written down. Raises ValueError for anything else, which ends the connection."""
    if not isinstance(value, str):
        raise ValueError(f"a text or a name must be text; got {value!r:.80}")
    value.encode()
    return value
