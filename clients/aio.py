"""The client for asyncio programs: the names of client.py, with `await`.

Rules: a thin driver over connection.py. One task reads from the socket; every call runs the connection's steps in the
caller's task and waits until the reader has received something. All in one event loop.

    async with AsyncClient() as glow, await glow.open(sinks=["socket"]) as stream:
        await stream.send(mel)
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from glowd.clients import errors, transport
from glowd.clients.connection import RECONNECT_S, Connection
from glowd.clients.control import StreamControl
from glowd.clients.listening import ListenerState, StreamEvent
from glowd.clients.steps import Steps
from glowd.clients.stream_state import StreamState
from glowd.clients.stream_view import StreamView
from glowd.daemon import wire
from glowd.flow.mel_formats.statement import Format, statement_map

T = TypeVar("T")


class AsyncClient:
    """A connection to the daemon, made by `await connect()` or `async with`. Raises NotRunning as Client does."""

    def __init__(
        self, endpoint: str = "", *, name: str = "", timeout_s: float = 3.0, reconnect_s: float = RECONNECT_S
    ) -> None:
        self._gateways, self.timeout_s = transport.gateways_at(endpoint), timeout_s
        self._connection = Connection(name or transport.program_name(), self._gateways, time.monotonic_ns, reconnect_s)
        self._own_only = not endpoint and transport.is_own_only(self.endpoint)
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process, self._closed = os.getpid(), False

    async def connect(self) -> "AsyncClient":
        """Connect, and return this client."""
        try:
            ipv6 = await asyncio.wait_for(transport.look_up(self._connection), self.timeout_s)
        except TimeoutError:
            raise self._connection.not_running(self.timeout_s) from None
        self._loop = asyncio.get_running_loop()
        self._changed = self._loop.create_future()
        self._context, self._lost = zmq.asyncio.Context(), asyncio.Event()
        try:
            self._open_socket(ipv6)
            self._tasks = [self._begin(self._tick())]
            await self.run(self._connection.questions.greet(), self.timeout_s)
        except errors.WaitTimeout:
            await self.close()
            raise self._connection.not_running(self.timeout_s) from None
        except zmq.ZMQError as fault:
            await self.close()
            raise errors.NotRunning(f"cannot connect to {self.endpoint}: {fault}") from None
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def endpoint(self) -> str:
        """Where it is connected, or tries to connect, without the secret."""
        return self._gateways.current.shown

    @property
    def welcome(self) -> wire.Welcome:
        """What the daemon said of itself when it was last asked: its voices, sinks and limits."""
        assert self._connection.welcome, "`connect` has waited for it"
        return self._connection.welcome

    async def open(
        self, name: str = "", *, voice: str = "", sinks: Sequence[str] = ("device",), seed: int = 0,
        gain_db: float = 0.0, prefill_ms: int = -1, sigma: float = -1.0, format: Format = None,
        strict: bool = False, allow_approximate: bool = False, audio_rate_hz: int = 0, audio_dtype: str = "f32",
        catch_up: str = "auto", max_lead_ms: int = 0, after: str = "", first_generation: int = 0,
    ) -> "AsyncStream":  # fmt: skip
        """A new stream; see Client.open."""
        stated = statement_map(format, strict=strict, allow_approximate=allow_approximate)
        request = wire.Open(
            name, voice, stated, list(sinks), seed, gain_db, prefill_ms, sigma, audio_rate_hz, audio_dtype, catch_up,
            max_lead_ms, after=after, generation=first_generation,
        )  # fmt: skip
        return AsyncStream(self, await self.run(self._connection.open(request), self.timeout_s))

    async def listen(self, stream: str = "*", *, audio_rate_hz: int = 0, audio_dtype: str = "f32") -> "AsyncListener":
        """The audio of a stream of any client, "*" for all, from now on; `audio_rate_hz` 0: at each voice's own rate."""
        request = wire.Listen(stream, audio_rate_hz, audio_dtype)
        return AsyncListener(self, await self.call(lambda: self._connection.listeners.listen(request)))

    def control(self, stream: str) -> StreamControl[Awaitable[None]]:
        """A stream that may be another client's, to stop it, hold it or set its volume."""
        return StreamControl(stream, self._connection.questions, lambda steps: self.run(steps, self.timeout_s))

    async def status(self) -> wire.State:
        """The daemon's state and figures (PROTOCOL.md, Telemetry)."""
        return await self.run(self._connection.questions.status(), self.timeout_s)

    async def cordon(self, engine: str) -> wire.State:
        """An engine, by its name in `status`, or the daemon, "*", gets no new streams. Raises Refused. Over TCP for admins."""
        return await self.run(self._connection.questions.place(engine, "cordon"), self.timeout_s)

    async def drain(self, engine: str) -> wire.State:
        """As `cordon`, and its streams go elsewhere when their utterance ends; an engine that has joined is dismissed then."""
        return await self.run(self._connection.questions.place(engine, "drain"), self.timeout_s)

    async def uncordon(self, engine: str) -> wire.State:
        """Undo `cordon` or `drain`."""
        return await self.run(self._connection.questions.place(engine, "uncordon"), self.timeout_s)

    async def refresh(self) -> wire.Welcome:
        """Ask again which voices and sinks are ready; `welcome` has the answer."""
        return await self.run(self._connection.questions.greet(), self.timeout_s)

    async def ping(self) -> int:
        """Round trip to the daemon in nanoseconds."""
        return await self.run(self._connection.questions.ping(), self.timeout_s)

    @property
    def usable(self) -> bool:
        """Whether it is connected and the daemon is not lost."""
        return self._connection.usable and not self._closed

    @property
    def is_over(self) -> bool:
        """Whether it can never be used again: it was closed, or the daemon did not come back."""
        return self._closed or self._connection.failure is not None

    async def close(self) -> None:
        """Close all streams and the connection. In a forked child: nothing, for both are the parent's."""
        if self._closed or self._loop is None or os.getpid() != self._process:
            return
        self._closed = True
        self._connection.leave()
        usable = self._connection.usable
        try:
            if usable:
                await self._send()
        finally:  # also if this is cancelled: a context that is left open makes Python hang at its end
            for task in (*self._tasks, *self._reading):
                task.cancel()
            try:
                await asyncio.gather(*self._tasks, *self._reading, return_exceptions=True)
            finally:
                self._notify_all()
                self._dealer.disable_monitor()
                self._context.destroy(linger=transport.LINGER_MS if usable else 0)

    async def __aenter__(self) -> "AsyncClient":
        return await self.connect()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- driving the connection

    async def run(self, steps: Steps[T], timeout_s: float | None = None) -> T:
        """Run `steps` to their result.

        Raises WaitTimeout when that takes longer than `timeout_s`, without the time in which the event loop did not run.
        """
        awake = self._connection.awake
        deadline_ns = None if timeout_s is None else awake.read_ns() + int(1e9 * timeout_s)
        with contextlib.closing(steps):
            while True:
                self._check_usable()
                try:
                    waits_for = next(steps)
                except StopIteration as done:
                    await self._send()
                    result: T = done.value
                    return result
                changed = self._changed  # taken before any await, so that no change is missed
                await self._send()
                left_s = None if deadline_ns is None else (deadline_ns - awake.read_ns()) / 1e9
                if left_s is not None and left_s <= 0:
                    steps.throw(errors.wait_timeout(timeout_s, waits_for, self._connection.absence))
                await asyncio.wait([changed], timeout=left_s)

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise errors.other_process(self._process, os.getpid())
        if self._loop is None:
            raise errors.UnusableClient("this client is not connected; use `async with`, or `await client.connect()`")
        if self._closed:
            raise errors.UnusableClient(errors.CLOSED)
        if asyncio.get_running_loop() is not self._loop:
            raise errors.UnusableClient("this client belongs to another event loop; make one in each")

    async def call(self, action: Callable[[], T]) -> T:
        """Run an action on the connection that needs no waiting."""
        self._check_usable()
        self._connection.check()
        result = action()
        await self._send()
        return result

    async def _send(self) -> None:
        while self._connection.outbox and self._socket_number == self._connection.sockets:
            parts = self._connection.outbox.popleft()
            try:
                await self._dealer.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:  # nobody to send it to, after a handshake that was refused; the next tick tries again
                self._connection.outbox.appendleft(parts)
                return

    def _notify_all(self) -> None:
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    # ---- the socket and the background tasks

    def _open_socket(self, ipv6: bool) -> None:
        """A socket, and the tasks that read from it; each daemon that the client meets gets a new one."""
        self._socket_number = self._connection.sockets
        self._dealer = self._context.socket(zmq.DEALER)
        transport.configure(self._dealer)
        self._monitor = self._dealer.get_monitor_socket(transport.MONITORED_EVENTS)
        self._peer_is_known = asyncio.Event()
        self._reading = [self._begin(self._read()), self._begin(self._watch(self._monitor))]
        transport.connect(self._dealer, self._gateways.current, ipv6)

    async def _replace_socket(self) -> None:
        ipv6 = await transport.look_up(self._connection)
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        self._dealer.disable_monitor()
        self._monitor.close(0)  # the loop would keep it
        self._dealer.close(0)
        self._open_socket(ipv6)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that fails must end every wait: nobody else would."""
        if not task.cancelled() and (fault := task.exception()):
            self._connection.fail(f"the client's task failed while connected to {self.endpoint}: {fault}")
            self._notify_all()

    def _heard(self) -> None:
        """The connection may have changed."""
        self._notify_all()
        if self._socket_number != self._connection.sockets:
            self._lost.set()

    async def _read(self) -> None:
        while self._socket_number == self._connection.sockets:
            message = await self._dealer.recv_multipart()
            await self._peer_is_known.wait()
            if self._socket_number != self._connection.sockets:
                return  # what comes from a socket that is given up is of a daemon that was left
            self._connection.receive(message)
            self._heard()
            await self._send()

    async def _watch(self, monitor: Any) -> None:
        while self._socket_number == self._connection.sockets:
            event = await monitor.recv_multipart()
            if self._socket_number != self._connection.sockets:
                return
            transport.take_event(event, self._connection, self._own_only)
            self._peer_is_known.set()
            self._heard()

    async def _tick(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self._connection.tick_every_s)
            self._lost.clear()
            was_lost = self._connection.is_lost
            self._connection.tick()
            if self._socket_number != self._connection.sockets:
                await self._replace_socket()
            if was_lost or self._connection.failure:
                self._notify_all()
            await self._send()


class AsyncStream(StreamView):
    """Speaks one utterance after the other; see client.Stream."""

    def __init__(self, client: AsyncClient, state: StreamState) -> None:
        super().__init__(state)
        self._client = client

    async def send(self, mel: object, timeout_s: float | None = None) -> None:
        """Send frames, natural log: [frames, bins] float32, or one frame [bins]. Waits for credit."""
        await self._client.run(self._state.send_mel(mel), timeout_s)

    async def end(self) -> None:
        """No more frames in this utterance. Does not wait; the next `send` begins the next utterance."""
        await self._client.call(self._state.end)

    async def wait_played(self, timeout_s: float | None = None) -> wire.Played | wire.Flushed | None:
        """End the utterance and wait until its last sample has left every sink; without frames, it is empty."""
        return await self._client.run(self._state.wait_played(), timeout_s)

    async def flush(self, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop speaking now; returns what was heard. Played, if everything was."""
        return await self._client.run(self._state.flush(fade_ms), self._client.timeout_s)

    async def pause(self) -> None:
        """Hold the position, silently."""
        await self._control(wire.Pause(self.name))

    async def resume(self) -> None:
        """Continue after `pause`."""
        await self._control(wire.Resume(self.name))

    async def gain(self, gain_db: float) -> None:
        """Set the volume on the device."""
        await self._control(wire.Gain(self.name, gain_db))

    async def _control(self, message: wire.Message) -> None:
        await self._client.call(lambda: self._state.control(message))

    async def audio(self, timeout_s: float | None = None) -> AsyncIterator[wire.Audio]:
        """The audio of the utterance (needs the "socket" sink), chunk by chunk, until its end or flush.

        It is the utterance of the last frames that were sent; or the next one, if that one was read already.
        """
        generation = self._state.generation_to_read()
        while chunk := await self._client.run(self._state.next_audio(generation), timeout_s):
            yield chunk
            if chunk.last:
                return

    async def close(self) -> None:
        """Close the stream; audio that is still playing is faded out."""
        with contextlib.suppress(errors.GlowdError):
            await self._client.call(lambda: self._client._connection.close(self._state))

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                await self.wait_played()
            else:
                with contextlib.suppress(errors.GlowdError):
                    await self.flush()
        finally:
            await self.close()


class AsyncListener:
    """Audio of streams that may belong to other clients."""

    def __init__(self, client: AsyncClient, state: ListenerState) -> None:
        self._client, self._connection, self._state = client, client._connection, state

    @property
    def warnings(self) -> list[wire.Warning]:
        """What the daemon has warned this listener of: that it reads too slowly and has lost audio."""
        return list(self._state.warnings)

    async def events(self, timeout_s: float | None = None) -> AsyncIterator[StreamEvent]:
        """Every chunk of audio and every ending, without end. Raises WaitTimeout when none comes within `timeout_s`."""
        while True:
            yield await self._client.run(self._connection.listeners.next_event(self._state), timeout_s)

    async def audio(self, timeout_s: float | None = None) -> AsyncIterator[wire.Audio]:
        """Every chunk of audio, without end."""
        async for event in self.events(timeout_s):
            if isinstance(event, wire.Audio):
                yield event

    async def flush(self, generation: int, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop the stream's utterance of this number. Raises StreamError if it is not the running one."""
        steps = self._connection.listeners.flush(self._state, generation, fade_ms)
        return await self._client.run(steps, self._client.timeout_s)

    async def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(errors.GlowdError):
            await self._client.call(lambda: self._connection.listeners.unlisten(self._state))

    async def __aenter__(self) -> "AsyncListener":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
