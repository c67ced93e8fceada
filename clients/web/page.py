"""One open page: its WebSocket, its client of the daemon, and what it hears.

Rules: one event loop. A page hears one thing at a time. It has a client of its own, so that what one page does, or does not
read, touches no other; the client connects when it is needed, and again when the daemon was gone. Faults become messages.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from glowd.clients import errors
from glowd.clients.aio import AsyncClient
from glowd.clients.upstream import UpstreamError
from glowd.clients.web import messages
from glowd.clients.web.hearing import Hearing
from glowd.clients.web.messages import PageError
from glowd.clients.web.protection import is_token
from glowd.clients.web.shared import Shared, shared_of
from glowd.daemon import wire

HELLO_S = 5.0
MAX_TASKS = 16
"""Requests of one page that may be done at the same time."""
NO_TOKEN, TOO_MANY = 4401, 4429
"""Why a page is disconnected: status codes of HTTP above 4000, which are free for applications."""

log = logging.getLogger("glowd")


async def live(websocket: WebSocket) -> None:
    """/live: one page, from its hello to its end."""
    shared = shared_of(websocket)
    await websocket.accept()
    if not await is_greeted(websocket, shared.site.token):
        await websocket.close(NO_TOKEN, "the first message must be hello with the token")
        return
    if len(shared.pages) >= shared.site.max_pages:
        await websocket.close(TOO_MANY, f"{shared.site.max_pages} pages are open (web.max_pages); close one")
        return
    shared.pages.add(websocket)
    try:
        await Page(websocket, shared).run()
    finally:
        shared.pages.discard(websocket)


async def is_greeted(websocket: WebSocket, token: str) -> bool:
    """Whether the first message has the token, and comes soon."""
    with contextlib.suppress(TimeoutError, PageError, WebSocketDisconnect, KeyError):
        async with asyncio.timeout(HELLO_S):
            hello = messages.parse(await websocket.receive_text())
        return isinstance(hello, messages.Hello) and is_token(hello.token, token)
    return False


class Page:
    """A page that has shown the token."""

    def __init__(self, websocket: WebSocket, shared: Shared) -> None:
        self._websocket, self._shared = websocket, shared
        self._client: AsyncClient | None = None
        self._hearing: Hearing | None = None
        self._turn = asyncio.Lock()
        """What changes what the page hears comes one after the other."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the page until it is closed."""
        try:
            self._start(self._voices(), -1)  # connects ahead, so that the first sound comes soon
            while True:
                await self._take(await self._websocket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: it sent bytes, which no page of ours does
            pass
        finally:
            leaving = asyncio.create_task(self._leave())
            self._shared.leaving.add(leaving)
            leaving.add_done_callback(self._shared.leaving.discard)
            await asyncio.shield(leaving)  # the server may cancel us; what we opened must be closed all the same

    async def _leave(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._hearing:
            await self._hearing.close()
        if self._client:
            await self._client.close()

    async def _take(self, text: str) -> None:
        try:
            request = messages.parse(text)
        except PageError as error:
            await self._say("error", id=-1, text=str(error))
            return
        if len(self._tasks) >= MAX_TASKS:
            await self._say("error", id=-1, text=f"{MAX_TASKS} requests are being done; wait for one to end")
            return
        match request:
            case messages.Report():
                if self._hearing and self._hearing.playback.id == request.id:
                    self._hearing.playback.on_report(request)
            case messages.Figures():
                self._start(self._figures(request), -1)
            case messages.Voices():
                self._start(self._voices(), -1)
            case messages.Listen() | messages.Say():
                self._start(self._hear(request), request.id)
            case messages.Stop():
                self._start(self._stop(request), request.id)
            case messages.Flush():
                self._start(self._flush(request), request.id)

    def _start(self, work: Coroutine[Any, Any, None], id: int) -> None:
        """Do something for request `id` beside the rest."""
        task = asyncio.create_task(self._told(work, id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, work: Coroutine[Any, Any, None], id: int) -> None:
        """Do it, and tell the page what goes wrong."""
        try:
            await work
        except (errors.DaemonGone, errors.NotRunning) as error:
            await self._say("ended", id=id, how="lost", generation=-1, text=str(error))
        except (PageError, UpstreamError, errors.GlowdError, wire.LocalError) as error:
            await self._say("error", id=id, text=str(error))
        except Exception:  # the edge of a task: one request that fails must not end the page
            log.exception("a request of a page failed")
            await self._say("error", id=id, text="the web process has a fault; its log says which")

    async def _say(self, type: str, **content: Any) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the page is gone: `run` ends
            await self._websocket.send_text(json.dumps({"type": type, **content}))

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.send_bytes(data)

    # ---- requests

    async def _connected(self) -> AsyncClient:
        """A client that works, or waits for a daemon that was lost. Raises NotRunning."""
        if self._client and self._client.is_over:
            await self._client.close()
            self._client = None
        if self._client is None:
            self._client = await AsyncClient(self._shared.site.endpoint, name="browser").connect()
        return self._client

    async def _voices(self) -> None:
        async with self._turn:
            welcome = await (await self._connected()).refresh()
        shown = ("name", "rate_hz", "default")
        await self._say("voices", voices=[{key: voice.get(key) for key in shown} for voice in welcome.voices])

    async def _figures(self, request: messages.Figures) -> None:
        n, snapshot = await self._shared.figures.next(request.seen)
        await self._say("figures", n=n, snapshot=snapshot)

    async def _hear(self, request: messages.Listen | messages.Say) -> None:
        async with self._turn:
            await self._silence()
            hearing = await Hearing.open(await self._connected(), request, self._shared, self._say, self._send)
            self._hearing = hearing
        await hearing.run()

    async def _silence(self) -> None:
        hearing, self._hearing = self._hearing, None
        if hearing:
            await hearing.close()

    async def _stop(self, request: messages.Stop) -> None:
        async with self._turn:
            if self._hearing and self._hearing.playback.id == request.id:
                await self._hearing.stop(request)
                await self._silence()

    async def _flush(self, request: messages.Flush) -> None:
        """Through a client of its own: to end its subscription must not end that of what the page hears."""
        async with AsyncClient(self._shared.site.endpoint, name="browser") as client:
            streams = wire.Snapshot.from_map((await client.status()).info).streams
            if request.stream not in streams:
                raise PageError(f"no stream {request.stream} is open")
            async with await client.listen(request.stream) as listener:
                ending = await listener.flush(streams[request.stream].generation or 0)
        last, dropped = (
            (ending.last_sample_played, ending.dropped_samples)
            if isinstance(ending, wire.Flushed)
            else (ending.total_samples - 1, 0)
        )
        await self._say(
            "stopped", id=request.id, stream=request.stream, generation=ending.generation, heard_sample=last,
            dropped_samples=dropped,
        )  # fmt: skip
