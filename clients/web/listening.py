"""A page hears a stream of any client: what the daemon sends goes into the page's ring.

Rules: one event loop. The stream does not wait for the page.
"""

from collections.abc import Awaitable, Callable

from glowd.clients.aio import AsyncClient, AsyncListener
from glowd.clients.web.messages import Listen, Stop
from glowd.clients.web.playback import Playback
from glowd.daemon import wire

OnFlushed = Callable[[wire.Flushed], Awaitable[None]]


class Listening:
    """The source of one `listen` request. `on_flushed`: the utterance that was heard was stopped."""

    def __init__(self, listener: AsyncListener, playback: Playback, on_flushed: OnFlushed) -> None:
        self._listener, self._playback, self._on_flushed = listener, playback, on_flushed

    @classmethod
    async def open(cls, client: AsyncClient, request: Listen, playback: Playback, on_flushed: OnFlushed) -> "Listening":
        """Subscribe to the stream. Raises GlowdError."""
        listener = await client.listen(request.stream, audio_rate_hz=request.rate_hz, audio_dtype="s16")
        return cls(listener, playback, on_flushed)

    async def run(self) -> None:
        """Pass on what comes, without end. Raises GlowdError."""
        async for event in self._listener.events():
            if isinstance(event, wire.Audio):
                self._playback.add(event)
            elif isinstance(event, wire.Flushed):
                self._playback.ring.discard(event.generation)
                await self._on_flushed(event)

    async def stop(self, heard: Stop) -> tuple[int, int]:
        """See Speech.stop. Others go on hearing the stream, so nothing is lost."""
        return heard.sample, 0

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.close()
