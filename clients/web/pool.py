"""Connections to the daemon for requests, each of which has one to itself, and what speaks their texts.

Rules: a connection is kept for the next request, because making one takes longer than the first audio. Limits per client
count for each connection. What speaks is loaded once, in a thread.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from glowd.clients import errors
from glowd.clients.aio import AsyncClient
from glowd.clients.upstream import Upstream, open_upstream

IDLE_CONNECTIONS = 4


class Pool:
    """Owner: the event loop of the web process."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._idle = endpoint, list[AsyncClient]()
        self._upstreams: dict[str, asyncio.Task[Upstream]] = {}

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """A connection whose `welcome` is new. Raises NotRunning if no daemon answers."""
        client = await self._connected()
        try:
            yield client
        except BaseException:
            await client.close()
            raise
        if client.usable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(client)
        else:
            await client.close()

    async def _connected(self) -> AsyncClient:
        while self._idle:
            client = self._idle.pop()
            if client.usable:
                with contextlib.suppress(errors.GlowdError):
                    await client.refresh()
                    return client
            await client.close()
        return await AsyncClient(self._endpoint, name="web-http").connect()

    async def upstream(self, name: str) -> Upstream:
        """What speaks texts, by its name. Raises UpstreamError; then it is tried again at the next call."""
        loading = self._upstreams.get(name)
        if loading is None or (loading.done() and loading.exception()):
            loading = self._upstreams[name] = asyncio.create_task(asyncio.to_thread(open_upstream, name))
        return await asyncio.shield(loading)

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()
