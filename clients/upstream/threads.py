"""Frames for asyncio programs: a generator of frames runs in a thread, one step at a time.

Rules: nothing is made ahead; an iteration that is given up ends what makes the frames.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

T = TypeVar("T")


async def in_thread(frames: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """The same items, each made in a thread while the event loop goes on. Close it (contextlib.aclosing) to stop early."""
    step = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, frames, None))
            chunk = await asyncio.shield(step)
            if chunk is None:
                return
            yield chunk
    finally:
        if step is not None and not step.done():  # cancelled within a step: a running generator cannot be closed
            await asyncio.wait([step])
            step.exception()
        await asyncio.to_thread(frames.close)
