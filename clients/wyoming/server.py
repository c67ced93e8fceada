"""The listening socket of the Wyoming service, and the connections on it.

Rules: who runs it decides when it stops: it takes no signals. Whatever a connection does ends that connection only.
"""

import asyncio
import contextlib
import functools
import importlib.metadata
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from typing import cast

from wyoming.info import Info

from glowd.clients.text_speaker import Speaker
from glowd.clients.upstream import Upstream
from glowd.clients.wyoming.connection import Connection
from glowd.clients.wyoming.description import described

MAX_EVENT_BYTES = 1 << 20
MAX_CONNECTIONS = 64

log = logging.getLogger("glowd")


class BoundedReader:
    """A reader for events of a limited size. Raises ValueError for a larger one, which ends the connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def readline(self) -> bytes:
        """A line; asyncio limits its length."""
        return await self._reader.readline()

    async def readexactly(self, count: int) -> bytes:
        """So many bytes."""
        if not 0 <= count <= MAX_EVENT_BYTES:
            raise ValueError(f"an event has {count} bytes of data; allowed: {MAX_EVENT_BYTES}")
        return await self._reader.readexactly(count)

    def feed_eof(self) -> None:
        """Nothing more comes."""
        self._reader.feed_eof()


class Service:
    """A speaker and what it is called."""

    def __init__(self, endpoint: str, upstream: Upstream, languages: Sequence[str]) -> None:
        self.speaker, self._upstream, self._languages = Speaker(endpoint, upstream, name="wyoming"), upstream, languages
        self._version = importlib.metadata.version("glowd")
        self.connections: set[asyncio.Task[None]] = set()

    async def describe(self) -> Info:
        """What Wyoming's `info` says now. Raises GlowdError."""
        voices = await self.speaker.voices()
        return described(voices, self._upstream.name, self._languages, self._version)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        assert task, "asyncio calls this in a task of its own"
        if len(self.connections) >= MAX_CONNECTIONS:
            log.warning("wyoming: %d connections are open; the next one is closed", MAX_CONNECTIONS)
            writer.close()
            return
        self.connections.add(task)
        try:
            bounded = cast(asyncio.StreamReader, BoundedReader(reader))  # it has what a Connection reads with
            await Connection(bounded, writer, self.speaker, self.describe).run()
        except Exception as error:  # the edge of a connection: what one client sends must not end the service
            log.warning("wyoming: a connection failed: %s: %s", type(error).__name__, error)
        except (
            asyncio.CancelledError
        ):  # the service ends; asyncio of Python 3.11 logs a traceback for a task that was cancelled
            pass
        finally:
            self.connections.discard(task)


@contextlib.asynccontextmanager
async def serving(service: Service, listening: socket.socket) -> AsyncIterator[None]:
    """Serve while the block runs; then end every connection."""
    server = await asyncio.start_server(functools.partial(service.accept), sock=listening)
    try:
        yield
    finally:
        server.close()
        for task in service.connections:
            task.cancel()
        await asyncio.gather(*service.connections, return_exceptions=True)
        await service.speaker.close()
