"""Speak a text to one page: a stream of the page's own, whose frames are sent at the pace at which the page hears.

Rules: one event loop. Nothing is lost, because no more is on its way than the ring holds. A page that takes nothing for
ASLEEP_S gives its stream up, because streams are few.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from glowd.clients import errors
from glowd.clients.aio import AsyncClient, AsyncStream
from glowd.clients.upstream import Upstream
from glowd.clients.upstream.texts import cut_at_pauses
from glowd.clients.voices import max_frames
from glowd.clients.web.messages import PageError, Say, Stop
from glowd.clients.web.playback import Playback
from glowd.clients.web.text_speech import frames_of_text
from glowd.daemon import wire
from glowd.flow.mel import Floats, MelFormat

LEAD_S = 3.0
"""How much more may have been sent to the daemon than the page has taken."""
CHUNK_FRAMES = 16
ASLEEP_S = 30.0


async def ready_voice(client: AsyncClient, name: str) -> Mapping[str, Any]:
    """As `voice_named`; asks the daemon only for a voice that was not ready before. Raises PageError, GlowdError."""
    try:
        return voice_named(client, name)
    except PageError:
        await client.refresh()
    return voice_named(client, name)


def voice_named(client: AsyncClient, name: str) -> Mapping[str, Any]:
    """A voice that is ready, "" for the default, as `welcome` describes it. Raises PageError."""
    for known in client.welcome.voices:
        if known.get("name") == name or (not name and known.get("default")):
            return known
    names = ", ".join(str(known.get("name")) for known in client.welcome.voices) or "none"
    raise PageError(f"voice {name or '(default)'} is not ready; ready voices: {names}")


class Speech:
    """The text of one `say` request, while it is spoken."""

    def __init__(
        self, stream: AsyncStream, mels: AsyncGenerator[Floats, None], most_frames: int, playback: Playback
    ) -> None:
        self.stream, self._mels, self._playback = stream, mels, playback
        self._most_frames, self._frames = most_frames, 0
        self._reading: asyncio.Task[None] | None = None
        self._totals: dict[int, int] = {}
        """Samples of each utterance so far."""

    @classmethod
    async def open(cls, client: AsyncClient, request: Say, playback: Playback, upstream: Upstream) -> "Speech":
        """Open a stream for a request, whose text `upstream` speaks. Raises PageError, UpstreamError, GlowdError."""
        voice = await ready_voice(client, request.voice)
        mel_format = MelFormat.from_dict(voice.get("format", {}))
        text = await frames_of_text(upstream, request.text, mel_format)
        stream = await client.open(
            voice=str(voice["name"]),
            sinks=["socket"],
            format=text.stated,
            audio_rate_hz=request.rate_hz,
            audio_dtype="s16",
        )
        return cls(stream, text.frames, max_frames(client.welcome, mel_format), playback)

    async def run(self) -> None:
        """Speak the text to its end. Raises PageError, UpstreamError, GlowdError."""
        try:
            async for mel in self._mels:
                for part in cut_at_pauses(mel, self._most_frames):
                    if self._frames + len(part) > self._most_frames:
                        await self._end()
                    await self._send(part)
            await self._end()
        finally:
            await self._mels.aclose()
            if self._reading:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)  # its fault is that of `send`

    async def _send(self, part: Floats) -> None:
        self._reading = self._reading or asyncio.create_task(self._read())
        for at in range(0, len(part), CHUNK_FRAMES):
            await self._wait_for_page()
            chunk = part[at : at + CHUNK_FRAMES]
            await self.stream.send(chunk)
            generation = self.stream.generation
            self._totals[generation] = self._totals.get(generation, 0) + len(chunk) * self.stream.hop
        self._frames += len(part)

    async def _wait_for_page(self) -> None:
        lead_s = sum(self._totals.values()) / self.stream.rate_hz - LEAD_S
        try:
            async with asyncio.timeout(ASLEEP_S):
                await self._playback.wait_taken(lead_s * self._playback.rate_hz)
        except TimeoutError:
            raise PageError(f"this page has taken no audio for {ASLEEP_S:g} s, so its stream was closed") from None

    async def _read(self) -> None:
        async for audio in self.stream.audio():
            self._playback.add(audio)

    async def _end(self) -> None:
        """End the utterance, and read its audio to the end."""
        if self._reading:
            await self.stream.end()
            await self._reading
        self._reading, self._frames = None, 0

    async def stop(self, heard: Stop) -> tuple[int, int]:
        """Stop speaking; the index of the last sample heard, at the rate of the voice, and how many were made in vain."""
        with contextlib.suppress(errors.GlowdError):
            ending = await self.stream.flush(fade_ms=0)
            if isinstance(ending, wire.Flushed) and ending.generation in self._totals:
                self._totals[ending.generation] = ending.last_sample_played + 1 + ending.dropped_samples
        sample = -1 if heard.sample < 0 else heard.sample * self.stream.rate_hz // self.stream.audio_rate_hz
        return sample, max(0, self._totals.get(heard.generation, 0) - sample - 1)

    async def close(self) -> None:
        """Close the stream."""
        await self.stream.close()
