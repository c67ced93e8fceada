"""What a page hears for one request: a source of audio, and the way of the audio to the page.

Rules: one event loop. `run` ends with the source, or when this is closed; then no task of it is left.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Protocol

from glowd.clients.aio import AsyncClient
from glowd.clients.web.listening import Listening
from glowd.clients.web.messages import Listen, Say, Stop
from glowd.clients.web.playback import Playback, SendBytes
from glowd.clients.web.shared import Shared
from glowd.clients.web.speaking import LEAD_S, Speech
from glowd.daemon import wire


class Tell(Protocol):
    """Sends a message to the page."""

    def __call__(self, type: str, **content: Any) -> Awaitable[None]: ...


class Hearing:
    """A source and its playback. Make it by `open`."""

    def __init__(self, source: Listening | Speech, playback: Playback, stream: str, tell: Tell) -> None:
        self.playback = playback
        self._source, self._stream, self._tell = source, stream, tell
        self._working: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls, client: AsyncClient, request: Listen | Say, shared: Shared, tell: Tell, send: SendBytes
    ) -> "Hearing":
        """Begin with a request, and tell the page so. Raises PageError, UpstreamError, GlowdError."""

        async def on_flushed(flushed: wire.Flushed) -> None:
            await tell("ended", id=request.id, how="flushed", generation=flushed.generation, text="")

        live = isinstance(request, Listen)
        kept_s = shared.site.listener_s if live else 2 * LEAD_S  # what a page says itself never fills it
        playback = Playback(request.id, request.rate_hz, kept_s, live, send)
        source: Listening | Speech
        if isinstance(request, Listen):
            source, stream = await Listening.open(client, request, playback, on_flushed), request.stream
        else:
            upstream = await shared.pool.upstream(shared.site.tts)
            source = await Speech.open(client, request, playback, upstream)
            stream = source.stream.name
        cushion_ms = shared.site.cushion_ms
        await tell("started", id=request.id, stream=stream, rate_hz=request.rate_hz, cushion_ms=cushion_ms)
        return cls(source, playback, stream, tell)

    async def run(self) -> None:
        """Pass audio on until the source ends, or until it is closed. Raises PageError, UpstreamError, GlowdError."""
        self._working = asyncio.ensure_future(self._work())
        await asyncio.wait([self._working])
        if not self._working.cancelled():
            self._working.result()

    async def _work(self) -> None:
        sending = asyncio.create_task(self.playback.send_all())
        try:
            await self._source.run()
            await self._source.close()
            self.playback.finish()
            await self.playback.sent_all.wait()
            await self._tell("ended", id=self.playback.id, how="spoken", generation=-1, text="")
        except Exception:  # cancelled it is left open: `stop` may still have to flush it
            await self._source.close()
            raise
        finally:
            sending.cancel()

    async def _halt(self) -> None:
        if self._working:
            self._working.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # the edge of a task: `run` has its result
                await self._working

    async def stop(self, heard: Stop) -> None:
        """Barge-in: stop the source, and tell the page what was heard and what was made in vain."""
        await self._halt()
        sample, dropped = await self._source.stop(heard)
        await self._tell(
            "stopped", id=self.playback.id, stream=self._stream, generation=heard.generation, heard_sample=sample,
            dropped_samples=dropped,
        )  # fmt: skip

    async def close(self) -> None:
        """End it."""
        await self._halt()
        await self._source.close()
