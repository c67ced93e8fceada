"""A text as mel frames, by what speaks texts on this machine (glowd.clients.upstream).

Rules: the only file of a page's speech that knows upstreams; they run in a thread, never in the event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

from glowd.clients.upstream import Upstream, in_thread, pieces_of_text, speak_text
from glowd.flow.mel import Floats, MelFormat


@dataclass(frozen=True, slots=True)
class TextFrames:
    """The frames [n, M] of a text as they are made; `stated`: what they are (open.format)."""

    stated: dict[str, Any]
    frames: AsyncGenerator[Floats, None]


async def frames_of_text(upstream: Upstream, text: str, wanted: MelFormat) -> TextFrames:
    """The frames of a text, in the format `wanted` where there is a choice. Raises UpstreamError, here or from the frames."""
    spoken = await asyncio.to_thread(lambda: speak_text(upstream, pieces_of_text(text), wanted))
    return TextFrames(spoken.stated, in_thread(without_numbers(spoken.parts)))


def without_numbers(parts: Generator[tuple[int, Floats], None, None]) -> Generator[Floats, None, None]:
    """The frames alone; closing this closes the parts."""
    try:
        for _, frames in parts:
            yield frames
    finally:
        parts.close()
