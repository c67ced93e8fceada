"""The client for asyncio programs: the names of client.py, with `await`.

Rules: a thin driver over connection.py. One task owns the socket's reading side; every call runs the connection's steps
in the caller's task and waits for its news. All in one event loop.

    async with AsyncClient() as glow, await glow.open(sinks=["socket"]) as stream:
        await stream.send(mel)
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from glowd.clients import errors, transport
from glowd.clients.connection import Channel, Connection, Heard, Inbox, Steps
from glowd.daemon import wire

T = TypeVar("T")


class AsyncClient:
    """A connection to the daemon, made by `await connect()` or `async with`. Raises NotRunning as Client does."""

    welcome: wire.Welcome

    def __init__(self, endpoint: str = "", *, name: str = "", timeout_s: float = 3.0) -> None:
        self.endpoint, self.timeout_s = endpoint or wire.default_endpoint(), timeout_s
        self._connection = Connection(name or transport.program_name(), time.monotonic_ns)
        self._opened = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> "AsyncClient":
        self._news = asyncio.get_running_loop().create_future()
        self._context = zmq.asyncio.Context()
        self._dealer = self._context.socket(zmq.DEALER)
        transport.configure(self._dealer)
        monitor = self._dealer.get_monitor_socket(transport.WATCHED)
        try:
            self._dealer.connect(self.endpoint)
            self._tasks = [asyncio.create_task(work) for work in (self._read(), self._watch(monitor), self._beat())]
            self.welcome = await self.run(self._connection.greet(), self.timeout_s)
        except errors.WaitTimeout:
            await self.close()
            raise errors.not_running(self.endpoint, self.timeout_s) from None
        except zmq.ZMQError as fault:
            await self.close()
            raise errors.NotRunning(f"cannot connect to {self.endpoint}: {fault}") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def open(
        self, name: str = "", *, voice: str = "", sinks: Sequence[str] = ("device",), seed: int = 0,
        gain_db: float = 0.0, prefill_ms: int = -1, sigma: float = -1.0, mel_format: dict[str, Any] | None = None,
    ) -> "AsyncStream":  # fmt: skip
        """A new stream; see Client.open."""
        self._opened += 1
        request = wire.Open(
            name or transport.stream_name(self._connection.client, self._opened), voice, mel_format or {}, list(sinks),
            seed, gain_db, prefill_ms, sigma,
        )  # fmt: skip
        return AsyncStream(self, await self.run(self._connection.open(request), self.timeout_s))

    async def listen(self, stream: str = "*") -> "AsyncListener":
        """The audio of a stream of any client, "*" for all, from now on."""
        return AsyncListener(self, await self.call(lambda: self._connection.listen(stream)))

    async def status(self) -> wire.State:
        """The daemon's state and what it tells about itself."""
        return await self.run(self._connection.status(), self.timeout_s)

    async def ping(self) -> int:
        """Round trip to the daemon in nanoseconds."""
        return await self.run(self._connection.ping(), self.timeout_s)

    async def close(self) -> None:
        """Close all streams and the connection."""
        self._connection.leave()
        failed = self._connection.failure or not self._connection.welcome
        if not failed:
            await self._send()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._dealer.disable_monitor()
        self._context.destroy(linger=0 if failed else transport.LINGER_MS)

    async def __aenter__(self) -> "AsyncClient":
        return await self.connect()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---- driving the connection

    async def run(self, steps: Steps[T], timeout_s: float | None = None) -> T:
        """Run `steps` to their result. Raises WaitTimeout when that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                with contextlib.closing(steps):
                    return await self._drive(steps)
        except TimeoutError:
            raise errors.WaitTimeout(f"the daemon did not do this within {timeout_s:g} s") from None

    async def _drive(self, steps: Steps[T]) -> T:
        while True:
            try:
                next(steps)
            except StopIteration as done:
                await self._send()
                result: T = done.value
                return result
            news = self._news  # before any await, so that nothing is missed
            await self._send()
            await asyncio.shield(news)

    async def call(self, action: Callable[[], T]) -> T:
        """Do something with the connection that needs no waiting."""
        self._connection.check()
        result = action()
        await self._send()
        return result

    async def _send(self) -> None:
        while self._connection.outbox:
            await self._dealer.send_multipart(self._connection.outbox.popleft())

    def _tell_all(self) -> None:
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    # ---- background tasks

    async def _read(self) -> None:
        while True:
            self._connection.receive(await self._dealer.recv_multipart())
            self._heard_s = time.monotonic()
            self._tell_all()
            await self._send()

    async def _watch(self, monitor: Any) -> None:
        while True:
            event = await monitor.recv_multipart()
            if self._connection.welcome:
                self._lost(transport.why_lost(event, self.endpoint))

    async def _beat(self) -> None:
        self._heard_s = time.monotonic()
        while True:
            await asyncio.sleep(transport.PING_EVERY_S)
            if self._connection.welcome and time.monotonic() - self._heard_s > transport.SILENCE_S:
                self._lost(f"the daemon at {self.endpoint} has said nothing for {transport.SILENCE_S:g} s")
            self._connection.beat()
            await self._send()

    def _lost(self, why: str) -> None:
        self._connection.lost(why)
        self._tell_all()


class AsyncStream:
    """Speaks one utterance after the other; see client.Stream."""

    def __init__(self, client: AsyncClient, channel: Channel) -> None:
        self._client, self._channel, self._connection = client, channel, client._connection
        assert channel.opened is not None, "AsyncClient.open waits for it"
        self.name, self.voice = channel.name, channel.opened.voice
        self.rate_hz, self.hop = channel.opened.rate_hz, channel.opened.hop

    @property
    def generation(self) -> int:
        """Number of the utterance that the next frames belong to."""
        return self._channel.generation

    @property
    def credit_frames(self) -> int:
        """Frames that can be sent without waiting."""
        return self._channel.credit_frames

    @property
    def state(self) -> str:
        """The daemon's last word on the stream."""
        return self._channel.state

    async def send(self, mel: object, timeout_s: float | None = None) -> None:
        """Send frames, natural log: [frames, bins] float32, or one frame [bins]. Waits for credit."""
        await self._client.run(self._channel.send_mel(mel), timeout_s)

    async def end(self) -> None:
        """No more frames in this utterance. Does not wait; the next `send` begins the next utterance."""
        await self._client.call(lambda: self._channel.end())

    async def wait_played(self, timeout_s: float | None = None) -> wire.Played | wire.Flushed | None:
        """End the utterance and wait until its last sample has left every sink. None if it had no frames."""
        return await self._client.run(self._channel.wait_played(), timeout_s)

    async def flush(self, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop speaking now; returns what was heard. Played, if everything was."""
        return await self._client.run(self._channel.flush(fade_ms), self._client.timeout_s)

    async def pause(self) -> None:
        """Hold the position, silently."""
        await self._tell(wire.Pause(self.name))

    async def resume(self) -> None:
        """Go on after `pause`."""
        await self._tell(wire.Resume(self.name))

    async def gain(self, gain_db: float) -> None:
        """Set the volume on the device."""
        await self._tell(wire.Gain(self.name, gain_db))

    async def audio(self, timeout_s: float | None = None) -> AsyncIterator[wire.Audio]:
        """The audio of the utterance (needs the "socket" sink), piece by piece, until its end or flush.

        It is the utterance of the last frames that were sent; or the next one, if that one was read already.
        """
        generation = self._channel.to_read()
        while piece := await self._client.run(self._channel.next_audio(generation), timeout_s):
            yield piece
            if piece.last:
                return

    async def close(self) -> None:
        """Give the stream back; what is still playing is faded out."""
        with contextlib.suppress(errors.GlowdError):
            await self._client.call(lambda: self._connection.close(self._channel))

    async def _tell(self, message: wire.Message) -> None:
        await self._client.call(lambda: self._channel.tell(message))

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
    """Audio of streams that may belong to others."""

    def __init__(self, client: AsyncClient, inbox: Inbox) -> None:
        self._client, self._inbox = client, inbox

    async def events(self, timeout_s: float | None = None) -> AsyncIterator[Heard]:
        """Every piece of audio and every ending, without end. Raises WaitTimeout when none comes within `timeout_s`."""
        while True:
            yield await self._client.run(self._client._connection.next_heard(self._inbox), timeout_s)

    async def audio(self, timeout_s: float | None = None) -> AsyncIterator[wire.Audio]:
        """Every piece of audio, without end."""
        async for heard in self.events(timeout_s):
            if isinstance(heard, wire.Audio):
                yield heard

    async def close(self) -> None:
        with contextlib.suppress(errors.GlowdError):
            await self._client.call(lambda: self._client._connection.unlisten(self._inbox))

    async def __aenter__(self) -> "AsyncListener":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
