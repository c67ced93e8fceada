"""Sentences -> audio of the daemon: one stream for a request, one utterance for a sentence.

Rules: asyncio; knows no front. A sentence ends its utterance, so its last sample comes although the next sentence
is not written yet. Whoever gives up closes the iterator, which flushes the stream.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from glowd.clients import errors
from glowd.clients.aio import AsyncClient, AsyncStream
from glowd.clients.upstream import Manner, Speech, Upstream, in_thread
from glowd.clients.voices import not_ready, ready_format, voice_state
from glowd.daemon.wire import Array
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.flow.mel import Floats, MelFormat

VOICE_WAIT_S, VOICE_POLL_S = 10.0, 0.1
SEED = 0


class Speaker:
    """Speaks the sentences of many requests at once. Owner: the event loop in which it is used."""

    def __init__(self, endpoint: str, upstream: Upstream, *, name: str, rate_hz: int = 0) -> None:
        """`name`: of this client, for the daemon; `rate_hz`: of the audio, 0: each voice's own."""
        self._endpoint, self._upstream, self._name, self._rate_hz = endpoint, upstream, name, rate_hz
        self._glow: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def voices(self) -> list[dict[str, Any]]:
        """The daemon's voices that are ready. Raises GlowdError."""
        return (await (await self._client()).refresh()).voices

    async def format_of(self, voice: str) -> MelFormat:
        """The mel format of a voice, "" for the default; waits a little while the daemon loads it. Raises GlowdError."""
        glow = await self._client()
        waiting = Silence(AwakeClock())
        while (found := ready_format(glow.welcome, voice)) is None:
            name, state = voice_state(await glow.status(), voice)
            if state is None or waiting.seconds > VOICE_WAIT_S:
                raise not_ready(glow.welcome, name, state)
            await asyncio.sleep(VOICE_POLL_S)
            await glow.refresh()
        return found

    async def speak(
        self, sentences: AsyncIterator[str], voice: str, wanted: MelFormat, manner: Manner = Manner()
    ) -> AsyncGenerator[Array, None]:
        """The audio [T] of the sentences, as it is made. Raises GlowdError or UpstreamError."""
        async with contextlib.AsyncExitStack() as stack:
            stream: AsyncStream | None = None
            async for sentence in sentences:
                speech = await asyncio.to_thread(self._upstream.speak, sentence, wanted, manner)
                async with contextlib.aclosing(in_thread(speech.frames)) as frames:
                    making = asyncio.ensure_future(anext(frames, None))
                    try:
                        if stream is None:  # while the first frames are made
                            stream = await stack.enter_async_context(await self._open(voice, speech))
                        first = await making
                    finally:
                        await cancelled(making)
                    if first is None:
                        continue
                    async with contextlib.aclosing(utterance(stream, first, frames)) as audio:
                        async for samples in audio:
                            yield samples

    async def close(self) -> None:
        """End the connection to the daemon, and every stream."""
        if self._glow is not None:
            await self._glow.close()

    async def _open(self, voice: str, speech: Speech) -> AsyncStream:
        assert self._glow is not None, "format_of has connected"
        return await self._glow.open(
            voice=voice, sinks=["socket"], format=speech.stated, seed=SEED, audio_rate_hz=self._rate_hz
        )

    async def _client(self) -> AsyncClient:
        """The connection; a new one if the daemon was lost for too long."""
        async with self._connecting:
            if self._glow is not None and self._glow.is_over:
                await self._glow.close()
                self._glow = None
            if self._glow is None:
                self._glow = await AsyncClient(self._endpoint, name=self._name).connect()
            return self._glow


async def cancelled(task: asyncio.Future[Any]) -> None:
    """End a task that is no longer wanted; one that has ended is left as it is."""
    task.cancel()
    await asyncio.wait([task])


async def utterance(stream: AsyncStream, first: Floats, rest: AsyncIterator[Floats]) -> AsyncGenerator[Array, None]:
    """Send the frames of an utterance, and give its audio [T], both at once."""
    await stream.send(first)
    sending = asyncio.create_task(send(stream, rest))
    try:
        async for chunk in stream.audio():
            if chunk.samples:
                yield chunk.payload
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def send(stream: AsyncStream, rest: AsyncIterator[Floats]) -> None:
    """Send frames and end the utterance. If that fails, the utterance is flushed, which ends its audio too."""
    try:
        async for frames in rest:
            await stream.send(frames)
        await stream.end()
    except Exception:
        with contextlib.suppress(errors.GlowdError):
            await stream.flush()
        raise
