"""What the plug-ins share: a text in, 16-bit samples out while they are made.

Rules: no framework. One connection to the daemon for a plug-in, one stream for a text.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from glowd.clients.text_speaker import Speaker
from glowd.clients.transport import client_endpoint
from glowd.clients.upstream import Manner, open_upstream, pieces_of_text
from glowd.daemon.wire.codec import to_s16


class TextToPcm:
    """Owner: the event loop in which it is used. Connects, and loads what speaks, at the first text.

    `voice`: of the daemon, "" for its default; `tts`: what makes mels of texts, as in `glowctl say --tts`.
    """

    def __init__(
        self, *, name: str, endpoint: str = "", voice: str = "", tts: str = "", tts_voice: str = "",
        speed: float = 1.0, rate_hz: int,
    ) -> None:  # fmt: skip
        self.voice, self.rate_hz, self._manner = voice, rate_hz, Manner(rate=speed)
        self._name, self._endpoint, self._tts = name, client_endpoint(endpoint), (tts, tts_voice)
        self._starting: asyncio.Task[Speaker] | None = None

    async def pcm(self, text: str) -> AsyncGenerator[bytes, None]:
        """The samples of a text, little-endian, mono. Raises GlowdError or UpstreamError.

        Whoever stops early closes it (contextlib.aclosing): then the daemon stops, too.
        """
        speaker = await self.ready()
        wanted = await speaker.format_of(self.voice)
        spoken = speaker.speak(_sentences(text), self.voice, wanted, self._manner)
        async with contextlib.aclosing(spoken) as audio:
            async for samples in audio:
                yield to_s16(samples).tobytes()

    async def ready(self) -> Speaker:
        """Load what speaks. Raises UpstreamError; then the next call tries again."""
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> Speaker:
        upstream = await asyncio.to_thread(open_upstream, *self._tts)
        return Speaker(self._endpoint, upstream, name=self._name, rate_hz=self.rate_hz)

    async def close(self) -> None:
        """End the connection, and every stream."""
        if self._starting is not None:
            self._starting.cancel()
            results = await asyncio.gather(self._starting, return_exceptions=True)
            if isinstance(results[0], Speaker):
                await results[0].close()


async def _sentences(text: str) -> AsyncIterator[str]:
    for piece in pieces_of_text(text):
        yield piece
