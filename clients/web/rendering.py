"""Frames in, audio out: one request's stream of the daemon.

Rules: frames are sent while audio is read, utterance by utterance. Whoever stops reading stops the stream: a barge-in.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from glowd.clients.aio import AsyncClient
from glowd.clients.text_speaker import utterance
from glowd.clients.web.encoders import Samples
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
    async with stream:
        utterances = _Utterances(parts)
        while (first := await utterances.begin()) is not None:
            async with contextlib.aclosing(utterance(stream, first, utterances.rest())) as audio:
                async for samples in audio:
                    yield to_s16(samples)


class _Utterances:
    """Numbered frames as utterances, one after the other."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._next: tuple[int, Floats] | None = None
        self._number = -1

    async def begin(self) -> Floats | None:
        """The first frames of the next utterance; None: there is none. Waits for them."""
        part, self._next = self._next or await anext(self._parts, None), None
        if part is None:
            return None
        self._number = part[0]
        return part[1]

    async def rest(self) -> AsyncIterator[Floats]:
        """The other frames of this utterance."""
        while (part := await anext(self._parts, None)) is not None:
            if part[0] != self._number:
                self._next = part
                return
            yield part[1]
