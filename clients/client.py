"""The client for ordinary programs: blocking calls, safe to use from several threads.

Rules: a thin driver over connection.py. One background thread owns the socket, keeps the heartbeat, and feeds the
connection; callers run the connection's steps under one lock and wait for its news.

    with Client() as glow, glow.open(sinks=["device"]) as stream:
        for mel in my_tts("Hello"):
            stream.send(mel)
"""

import contextlib
import socket as sockets_of_the_system
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import zmq

from glowd.clients import errors, transport
from glowd.clients.connection import Channel, Connection, Heard, Inbox, Steps
from glowd.daemon import wire

T = TypeVar("T")


class Client:
    """A connection to the daemon. Raises NotRunning when none answers within `timeout_s`.

    `timeout_s` also bounds every answer that the daemon gives at once (open, flush, status, ping).
    """

    def __init__(self, endpoint: str = "", *, name: str = "", timeout_s: float = 3.0) -> None:
        self.endpoint, self.timeout_s = endpoint or wire.default_endpoint(), timeout_s
        self._connection = Connection(name or transport.program_name(), time.monotonic_ns)
        self._changed = threading.Condition()
        self._wake, woken = sockets_of_the_system.socketpair()
        self._wake.setblocking(False)
        self._stopping, self._opened = False, 0
        self._thread = threading.Thread(target=self._serve, args=(woken,), name="glowd-client", daemon=True)
        self._thread.start()
        try:
            self.welcome = self.run(self._connection.greet(), timeout_s)
        except errors.WaitTimeout:
            self.close()
            raise errors.not_running(self.endpoint, timeout_s) from None
        except BaseException:
            self.close()
            raise

    def open(
        self, name: str = "", *, voice: str = "", sinks: Sequence[str] = ("device",), seed: int = 0,
        gain_db: float = 0.0, prefill_ms: int = -1, sigma: float = -1.0, mel_format: dict[str, Any] | None = None,
    ) -> "Stream":  # fmt: skip
        """A new stream. Sinks: "device", "socket" (see Stream.audio), "null", "file:NAME".

        `mel_format`, if given, is compared with the voice's. Raises Refused with the daemon's reason.
        """
        with self._changed:
            self._opened += 1
            number = self._opened
        request = wire.Open(
            name or transport.stream_name(self._connection.client, number), voice, mel_format or {}, list(sinks),
            seed, gain_db, prefill_ms, sigma,
        )  # fmt: skip
        return Stream(self, self.run(self._connection.open(request), self.timeout_s))

    def listen(self, stream: str = "*") -> "Listener":
        """The audio of a stream of any client, "*" for all, from now on."""
        return Listener(self, self.call(lambda: self._connection.listen(stream)))

    def status(self) -> wire.State:
        """The daemon's state and what it tells about itself."""
        return self.run(self._connection.status(), self.timeout_s)

    def ping(self) -> int:
        """Round trip to the daemon in nanoseconds."""
        return self.run(self._connection.ping(), self.timeout_s)

    def close(self) -> None:
        """Close all streams and the connection."""
        with self._changed:
            self._connection.leave()
            self._stopping = True
            self._changed.notify_all()
        self._poke()
        self._thread.join()
        self._wake.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- driving the connection

    def run(self, steps: Steps[T], timeout_s: float | None = None) -> T:
        """Run `steps` to their result. Raises WaitTimeout when that takes longer than `timeout_s`."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed, contextlib.closing(steps):
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    result: T = done.value
                    return result
                finally:
                    self._poke()
                if self._stopping:
                    raise errors.GlowdError("this client was closed")
                left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                if not self._changed.wait(left_s):
                    raise errors.WaitTimeout(f"the daemon did not do this within {timeout_s:g} s")

    def call(self, action: Callable[[], T]) -> T:
        """Do something with the connection that needs no waiting."""
        with self._changed:
            self._connection.check()
            result = action()
        self._poke()
        return result

    def _poke(self) -> None:
        if self._connection.outbox or self._stopping:
            with contextlib.suppress(OSError):  # full: it will wake anyway; closed: it has ended
                self._wake.send(b"x")

    # ---- the background thread

    def _serve(self, woken: sockets_of_the_system.socket) -> None:
        context = zmq.Context()
        dealer = context.socket(zmq.DEALER)
        transport.configure(dealer)
        monitor = dealer.get_monitor_socket(transport.WATCHED)
        poller = zmq.Poller()
        for source in (dealer, monitor, woken):
            poller.register(source, zmq.POLLIN)
        try:
            dealer.connect(self.endpoint)
            self._exchange(poller, dealer, monitor, woken)
        except zmq.ZMQError as fault:
            self._lost(f"cannot connect to {self.endpoint}: {fault}")
        finally:
            dealer.disable_monitor()
            context.destroy(
                linger=0 if self._connection.failure or not self._connection.welcome else transport.LINGER_MS
            )
            woken.close()

    def _exchange(
        self, poller: zmq.Poller, dealer: "zmq.Socket[bytes]", monitor: Any, woken: sockets_of_the_system.socket
    ) -> None:
        heard_s = pinged_s = time.monotonic()
        while not (self._stopping and not self._connection.outbox):
            ready = dict(poller.poll(int(1000 * min(1.0, transport.PING_EVERY_S))))
            now_s = time.monotonic()
            if woken.fileno() in ready:
                woken.recv(4096)
            if dealer in ready:
                heard_s = now_s
                self._receive(dealer)
            if monitor in ready:
                event = monitor.recv_multipart()
                if self._connection.welcome:
                    self._lost(transport.why_lost(event, self.endpoint))
                    break
            if now_s - pinged_s > transport.PING_EVERY_S:
                pinged_s = now_s
                with self._changed:
                    self._connection.beat()
            if now_s - heard_s > transport.SILENCE_S and self._connection.welcome:
                self._lost(f"the daemon at {self.endpoint} has said nothing for {transport.SILENCE_S:g} s")
                break
            with self._changed:
                while self._connection.outbox:
                    dealer.send_multipart(self._connection.outbox.popleft())

    def _receive(self, dealer: "zmq.Socket[bytes]") -> None:
        with self._changed:
            with contextlib.suppress(zmq.Again):
                while True:
                    self._connection.receive(dealer.recv_multipart(zmq.NOBLOCK))
            self._changed.notify_all()

    def _lost(self, why: str) -> None:
        with self._changed:
            self._connection.lost(why)
            self._changed.notify_all()


class Stream:
    """Speaks one utterance after the other. As a context manager it plays to the end; an exception flushes instead."""

    def __init__(self, client: Client, channel: Channel) -> None:
        self._client, self._channel, self._connection = client, channel, client._connection
        assert channel.opened is not None, "Client.open waits for it"
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
        """The daemon's last word on the stream: "playing", "starved", ..."""
        return self._channel.state

    def send(self, mel: object, timeout_s: float | None = None) -> None:
        """Send frames, natural log: [frames, bins] float32, or one frame [bins]. Waits for credit.

        Raises ValueError for frames of another shape or range; Interrupted when another thread flushed meanwhile.
        """
        self._client.run(self._channel.send_mel(mel), timeout_s)

    def end(self) -> None:
        """No more frames in this utterance. Does not wait; the next `send` begins the next utterance."""
        self._client.call(lambda: self._channel.end())

    def wait_played(self, timeout_s: float | None = None) -> wire.Played | wire.Flushed | None:
        """End the utterance and wait until its last sample has left every sink. None if it had no frames."""
        return self._client.run(self._channel.wait_played(), timeout_s)

    def flush(self, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop speaking now; returns what was heard. Played, if everything was."""
        return self._client.run(self._channel.flush(fade_ms), self._client.timeout_s)

    def pause(self) -> None:
        """Hold the position, silently."""
        self._tell(wire.Pause(self.name))

    def resume(self) -> None:
        """Go on after `pause`."""
        self._tell(wire.Resume(self.name))

    def gain(self, gain_db: float) -> None:
        """Set the volume on the device."""
        self._tell(wire.Gain(self.name, gain_db))

    def audio(self, timeout_s: float | None = None) -> Iterator[wire.Audio]:
        """The audio of the utterance (needs the "socket" sink), piece by piece, until its end or flush.

        It is the utterance of the last frames that were sent; or the next one, if that one was read already.
        """
        generation = self._channel.to_read()
        while piece := self._client.run(self._channel.next_audio(generation), timeout_s):
            yield piece
            if piece.last:
                return

    def close(self) -> None:
        """Give the stream back; what is still playing is faded out."""
        with contextlib.suppress(errors.GlowdError):
            self._client.call(lambda: self._connection.close(self._channel))

    def _tell(self, message: wire.Message) -> None:
        self._client.call(lambda: self._channel.tell(message))

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self.wait_played()
            else:
                with contextlib.suppress(errors.GlowdError):
                    self.flush()
        finally:
            self.close()


class Listener:
    """Audio of streams that may belong to others. A context manager and an iterator."""

    def __init__(self, client: Client, inbox: Inbox) -> None:
        self._client, self._inbox = client, inbox

    def events(self, timeout_s: float | None = None) -> Iterator[Heard]:
        """Every piece of audio and every ending, without end. Raises WaitTimeout when none comes within `timeout_s`."""
        while True:
            yield self._client.run(self._client._connection.next_heard(self._inbox), timeout_s)

    def audio(self, timeout_s: float | None = None) -> Iterator[wire.Audio]:
        """Every piece of audio, without end."""
        return (heard for heard in self.events(timeout_s) if isinstance(heard, wire.Audio))

    def flush(self, generation: int, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop the stream's utterance of this number. Raises StreamError if it is not the running one."""
        steps = self._client._connection.flush_heard(self._inbox, generation, fade_ms)
        return self._client.run(steps, self._client.timeout_s)

    def close(self) -> None:
        with contextlib.suppress(errors.GlowdError):
            self._client.call(lambda: self._client._connection.unlisten(self._inbox))

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
