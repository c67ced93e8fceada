"""An answer whose audio is made while it is sent.

Rules: ASGI. The first audio decides: what fails before it is an error with a status, what fails after it cuts the answer off,
so that no client takes a part for the whole. A client that hangs up ends the making: the audio generator is closed.
"""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable

from starlette.types import Receive, Scope, Send

from glowd.clients import errors
from glowd.clients.upstream import UpstreamError
from glowd.clients.web.api_error import ApiError, of_daemon
from glowd.clients.web.encoders import AudioFormat, Encoder, Samples

log = logging.getLogger("glowd")

FAULTS = (ApiError, UpstreamError, errors.GlowdError, ValueError)
"""What a request, an upstream or the daemon can cause."""


class Plain:
    """The encoder's bytes as the body."""

    def __init__(self, format: AudioFormat) -> None:
        self.content_type = format.content_type

    def audio(self, data: bytes) -> bytes:
        """What is sent for some audio."""
        return data

    def end(self) -> bytes:
        """What is sent at the end."""
        return b""


class Events(Plain):
    """Server-sent events: the bytes in base64, then the end."""

    def __init__(self, input_tokens: int) -> None:
        self.content_type, self._tokens = "text/event-stream", input_tokens

    def audio(self, data: bytes) -> bytes:
        """See Plain."""
        return event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})

    def end(self) -> bytes:
        """See Plain. Words are counted as tokens, because nothing here has tokens."""
        usage = {"input_tokens": self._tokens, "output_tokens": 0, "total_tokens": self._tokens}
        return event({"type": "speech.audio.done", "usage": usage})


def event(content: dict[str, object]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(content)}\n\n".encode()


class AudioResponse:
    """Sends the audio of a generator. `gone` returns when the client has hung up."""

    def __init__(
        self,
        audio: AsyncGenerator[Samples, None],
        encoder: Encoder,
        packing: Plain,
        gone: Awaitable[None] | None = None,
    ) -> None:
        self._audio, self._encoder, self._packing, self._gone = audio, encoder, packing, gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(self._gone or hung_up(receive))
        sending = asyncio.create_task(self._answer(scope, receive, send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            results = await asyncio.gather(gone, sending, return_exceptions=True)
        if isinstance(results[1], Exception):
            raise results[1]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._audio) as audio:
            try:
                first = await anext(audio, None)
            except FAULTS as fault:
                await as_api_error(fault).response()(scope, receive, send)
                return
            try:
                await self._send_all(first, audio, send)
            except FAULTS as fault:  # to return now is to cut the answer off
                log.warning("an answer was cut off: %s", fault)

    async def _send_all(self, first: Samples | None, audio: AsyncGenerator[Samples, None], send: Send) -> None:
        headers = [(b"content-type", self._packing.content_type.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if first is not None:
            await self._send(self._encoder.add(first), send)
            async for samples in audio:
                await self._send(self._encoder.add(samples), send)
        await self._send(self._encoder.end(), send)
        await send({"type": "http.response.body", "body": self._packing.end(), "more_body": False})

    async def _send(self, data: bytes, send: Send) -> None:
        if data:
            await send({"type": "http.response.body", "body": self._packing.audio(data), "more_body": True})


def as_api_error(fault: Exception) -> ApiError:
    """What a client is told of a fault."""
    if isinstance(fault, ApiError):
        return fault
    return of_daemon(fault) if isinstance(fault, errors.GlowdError) else ApiError(400, str(fault))


async def hung_up(receive: Receive) -> None:
    """Returns when the client has gone; its request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
