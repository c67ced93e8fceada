"""The client for ordinary programs: blocking calls, safe to use from several threads.

Rules: a thin driver over connection.py. One background thread owns the socket and passes messages between it and the
connection; callers run the connection's steps under one lock and wait until the thread has received something.

    with Client() as glow, glow.open(sinks=["device"]) as stream:
        for mel in my_tts("Hello"):
            stream.send(mel)
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import zmq

from glowd.clients import errors, transport
from glowd.clients.connection import RECONNECT_S, Connection
from glowd.clients.control import StreamControl
from glowd.clients.gateways import REFUSED
from glowd.clients.listening import ListenerState, StreamEvent
from glowd.clients.steps import Steps
from glowd.clients.stream_state import StreamState
from glowd.clients.stream_view import StreamView
from glowd.daemon import wire
from glowd.daemon.wire.ip_version import no_address, wants_ipv6
from glowd.flow.mel_formats.statement import Format, statement_map

T = TypeVar("T")
log = logging.getLogger("glowd.client")


class Client:
    """A connection to the daemon. Raises NotRunning when none answers within `timeout_s`.

    `timeout_s` also bounds every answer that the daemon gives at once (open, flush, status, ping). A daemon that is lost
    later may come back within `reconnect_s`: then every stream goes on where its listener is. 0: it may not.
    """

    def __init__(
        self, endpoint: str = "", *, name: str = "", timeout_s: float = 3.0, reconnect_s: float = RECONNECT_S
    ) -> None:
        self._gateways, self.timeout_s = transport.gateways_at(endpoint), timeout_s
        self._connection = Connection(name or transport.program_name(), self._gateways, time.monotonic_ns, reconnect_s)
        self._own_only = not endpoint and transport.is_own_only(self.endpoint)
        self._changed = threading.Condition()
        self._wake, wakeup = socket.socketpair()
        self._wake.setblocking(False)
        self._stopping, self._process = False, os.getpid()
        self._thread = threading.Thread(target=self._run_thread, args=(wakeup,), name="glowd-client", daemon=True)
        self._thread.start()
        try:
            self.run(self._connection.questions.greet(), timeout_s)
        except errors.WaitTimeout:
            self.close()
            raise self._connection.not_running(timeout_s) from None
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        """Where it is connected, or tries to connect, without the secret."""
        return self._gateways.current.shown

    @property
    def welcome(self) -> wire.Welcome:
        """What the daemon said of itself when it was last asked: its voices, sinks and limits."""
        assert self._connection.welcome, "the constructor has waited for it"
        return self._connection.welcome

    def open(
        self, name: str = "", *, voice: str = "", sinks: Sequence[str] = ("device",), seed: int = 0,
        gain_db: float = 0.0, prefill_ms: int = -1, sigma: float = -1.0, format: Format = None,
        strict: bool = False, allow_approximate: bool = False, audio_rate_hz: int = 0, audio_dtype: str = "f32",
        catch_up: str = "auto", max_lead_ms: int = 0, after: str = "", first_generation: int = 0,
    ) -> "Stream":  # fmt: skip
        """A new stream. Sinks: "device", "socket" (see Stream.audio), "null", "file:NAME".

        `format` says what the frames are, if they are not the voice's own: a preset ("matcha"; see `glowctl formats`), or
        keys of PROTOCOL.md, Mel formats. The daemon converts them; those with other bands only with `allow_approximate`.
        `strict`: implausible frames are an error, not a warning. `audio_rate_hz` and `audio_dtype` ("f32" or "s16") are
        those of Stream.audio, 0: the voice's own rate. `catch_up` ("auto", "live", "never") and `max_lead_ms`: see
        PROTOCOL.md, Delay. `after`: the name of a stream of this client; the device goes on with this one as soon as what
        that one speaks now has been played. `first_generation`: the number of the first utterance. Raises Refused, or
        MelError for a format, with the daemon's reason.
        """
        stated = statement_map(format, strict=strict, allow_approximate=allow_approximate)
        request = wire.Open(
            name, voice, stated, list(sinks), seed, gain_db, prefill_ms, sigma, audio_rate_hz, audio_dtype, catch_up,
            max_lead_ms, after=after, generation=first_generation,
        )  # fmt: skip
        return Stream(self, self.run(self._connection.open(request), self.timeout_s))

    def listen(self, stream: str = "*", *, audio_rate_hz: int = 0, audio_dtype: str = "f32") -> "Listener":
        """The audio of a stream of any client, "*" for all, from now on; `audio_rate_hz` 0: at each voice's own rate."""
        request = wire.Listen(stream, audio_rate_hz, audio_dtype)
        return Listener(self, self.call(lambda: self._connection.listeners.listen(request)))

    def control(self, stream: str) -> StreamControl[None]:
        """A stream that may be another client's, to stop it, hold it or set its volume."""
        return StreamControl(stream, self._connection.questions, lambda steps: self.run(steps, self.timeout_s))

    def status(self) -> wire.State:
        """The daemon's state and figures (PROTOCOL.md, Telemetry)."""
        return self.run(self._connection.questions.status(), self.timeout_s)

    def cordon(self, engine: str) -> wire.State:
        """An engine, by its name in `status`, or the daemon, "*", gets no new streams. Raises Refused. Over TCP for admins."""
        return self.run(self._connection.questions.place(engine, "cordon"), self.timeout_s)

    def drain(self, engine: str) -> wire.State:
        """As `cordon`, and its streams go elsewhere when their utterance ends; an engine that has joined is dismissed then."""
        return self.run(self._connection.questions.place(engine, "drain"), self.timeout_s)

    def uncordon(self, engine: str) -> wire.State:
        """Undo `cordon` or `drain`."""
        return self.run(self._connection.questions.place(engine, "uncordon"), self.timeout_s)

    def refresh(self) -> wire.Welcome:
        """Ask again which voices and sinks are ready; `welcome` has the answer."""
        return self.run(self._connection.questions.greet(), self.timeout_s)

    def ping(self) -> int:
        """Round trip to the daemon in nanoseconds."""
        return self.run(self._connection.questions.ping(), self.timeout_s)

    def close(self) -> None:
        """Close all streams and the connection. In a forked child: nothing, for both are the parent's."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._connection.leave()
            self._stopping = True
            self._changed.notify_all()
        self._wake_thread()
        self._thread.join()
        self._wake.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- driving the connection

    def run(self, steps: Steps[T], timeout_s: float | None = None) -> T:
        """Run `steps` to their result.

        Raises WaitTimeout when that takes longer than `timeout_s`, without the time in which the program did not run.
        """
        self._check_process()
        awake = self._connection.awake
        with self._changed, contextlib.closing(steps):
            deadline_ns = None if timeout_s is None else awake.read_ns() + int(1e9 * timeout_s)
            while True:
                self._check_open()
                try:
                    waits_for = next(steps)
                except StopIteration as done:
                    result: T = done.value
                    return result
                finally:
                    self._wake_thread()
                left_s = None if deadline_ns is None else (deadline_ns - awake.read_ns()) / 1e9
                if left_s is not None and left_s <= 0:
                    steps.throw(errors.wait_timeout(timeout_s, waits_for, self._connection.absence))
                self._changed.wait(left_s)

    def call(self, action: Callable[[], T]) -> T:
        """Run an action on the connection that needs no waiting."""
        self._check_process()
        with self._changed:
            self._check_open()
            self._connection.check()
            result = action()
        self._wake_thread()
        return result

    def _check_process(self) -> None:
        """Before the lock is taken: in a forked child, a thread that does not exist there may hold it."""
        if os.getpid() != self._process:
            raise errors.other_process(self._process, os.getpid())

    def _check_open(self) -> None:
        if self._stopping:
            raise errors.UnusableClient(errors.CLOSED)

    def _wake_thread(self) -> None:
        if self._connection.outbox or self._stopping:
            with contextlib.suppress(OSError):  # full: the thread wakes anyway; closed: it has ended
                self._wake.send(b"x")

    # ---- the background thread

    def _run_thread(self, wakeup: socket.socket) -> None:
        context = zmq.Context()
        try:
            while not self._is_over:
                self._use_socket(context, wakeup)
        except Exception as fault:  # the edge of the thread: whoever waits for it must learn that it has ended
            what = "cannot connect" if isinstance(fault, zmq.ZMQError) else "the client's thread failed while connected"
            self._fail(f"{what} to {self.endpoint}: {fault}")
        finally:
            context.destroy(linger=transport.LINGER_MS if self._connection.usable else 0)
            wakeup.close()

    @property
    def _is_over(self) -> bool:
        if self._stopping:  # what nobody reads is not waited for
            return not (self._connection.outbox and self._connection.usable)
        return self._connection.failure is not None

    def _fail(self, reason: str) -> None:
        log.debug("the client's thread ends", exc_info=True)
        with self._changed:
            self._connection.fail(reason)
            self._changed.notify_all()

    def _use_socket(self, context: "zmq.Context[zmq.Socket[bytes]]", wakeup: socket.socket) -> None:
        """Pass messages both ways, until the client closes, the connection fails or needs another socket."""
        dealer = context.socket(zmq.DEALER)
        transport.configure(dealer)
        monitor = dealer.get_monitor_socket(transport.MONITORED_EVENTS)
        number = self._connection.sockets
        try:
            address = self._gateways.current
            if fault := no_address(address.url):
                with self._changed:
                    self._connection.not_reached(fault, REFUSED)
            transport.connect(dealer, address, wants_ipv6(address.url))
            self._exchange(number, dealer, monitor, wakeup)
        finally:
            dealer.disable_monitor()
            dealer.close(0 if number != self._connection.sockets else None)

    def _exchange(self, number: int, dealer: "zmq.Socket[bytes]", monitor: Any, wakeup: socket.socket) -> None:
        poller = zmq.Poller()
        for source in (dealer, monitor, wakeup):
            poller.register(source, zmq.POLLIN)
        while not self._is_over and number == self._connection.sockets:
            ready = dict(poller.poll(int(1000 * self._connection.tick_every_s)))
            if wakeup.fileno() in ready:
                wakeup.recv(4096)
            with self._changed:
                if monitor in ready:
                    transport.take_event(monitor.recv_multipart(), self._connection, self._own_only)
                if dealer in ready:
                    self._receive(number, dealer)
                was_lost = self._connection.is_lost
                self._connection.tick()
                while self._connection.outbox and number == self._connection.sockets:
                    if not transport.try_send(dealer, self._connection.outbox[0]):
                        break
                    self._connection.outbox.popleft()
                if dealer in ready or was_lost or self._connection.failure:
                    self._changed.notify_all()

    def _receive(self, number: int, dealer: "zmq.Socket[bytes]") -> None:
        with contextlib.suppress(zmq.Again):
            while number == self._connection.sockets:
                self._connection.receive(dealer.recv_multipart(zmq.NOBLOCK))


class Stream(StreamView):
    """Speaks one utterance after the other. As a context manager it plays to the end; an exception flushes instead."""

    def __init__(self, client: Client, state: StreamState) -> None:
        super().__init__(state)
        self._client = client

    def send(self, mel: object, timeout_s: float | None = None) -> None:
        """Send frames, natural log: [frames, bins] float32, or one frame [bins]. Waits for credit.

        Raises ValueError for frames of another shape or range; Interrupted when another thread flushed meanwhile;
        WaitTimeout, whose `frames_taken` says how many of them were sent, and may be followed by the same call again.
        """
        self._client.run(self._state.send_mel(mel), timeout_s)

    def end(self) -> None:
        """No more frames in this utterance. Does not wait; the next `send` begins the next utterance."""
        self._client.call(self._state.end)

    def wait_played(self, timeout_s: float | None = None) -> wire.Played | wire.Flushed | None:
        """End the utterance and wait until its last sample has left every sink; without frames, it is empty."""
        return self._client.run(self._state.wait_played(), timeout_s)

    def flush(self, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop speaking now; returns what was heard. Played, if everything was."""
        return self._client.run(self._state.flush(fade_ms), self._client.timeout_s)

    def pause(self) -> None:
        """Hold the position, silently."""
        self._control(wire.Pause(self.name))

    def resume(self) -> None:
        """Continue after `pause`."""
        self._control(wire.Resume(self.name))

    def gain(self, gain_db: float) -> None:
        """Set the volume on the device."""
        self._control(wire.Gain(self.name, gain_db))

    def _control(self, message: wire.Message) -> None:
        self._client.call(lambda: self._state.control(message))

    def audio(self, timeout_s: float | None = None) -> Iterator[wire.Audio]:
        """The audio of the utterance (needs the "socket" sink), chunk by chunk, until its end or flush.

        It is the utterance of the last frames that were sent; or the next one, if that one was read already.
        """
        generation = self._state.generation_to_read()
        while chunk := self._client.run(self._state.next_audio(generation), timeout_s):
            yield chunk
            if chunk.last:
                return

    def close(self) -> None:
        """Close the stream; audio that is still playing is faded out."""
        with contextlib.suppress(errors.GlowdError):
            self._client.call(lambda: self._client._connection.close(self._state))

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
    """Audio of streams that may belong to other clients."""

    def __init__(self, client: Client, state: ListenerState) -> None:
        self._client, self._connection, self._state = client, client._connection, state

    @property
    def warnings(self) -> list[wire.Warning]:
        """What the daemon has warned this listener of: that it reads too slowly and has lost audio."""
        return list(self._state.warnings)

    def events(self, timeout_s: float | None = None) -> Iterator[StreamEvent]:
        """Every chunk of audio and every ending, without end. Raises WaitTimeout when none comes within `timeout_s`."""
        while True:
            yield self._client.run(self._connection.listeners.next_event(self._state), timeout_s)

    def audio(self, timeout_s: float | None = None) -> Iterator[wire.Audio]:
        """Every chunk of audio, without end."""
        return (event for event in self.events(timeout_s) if isinstance(event, wire.Audio))

    def flush(self, generation: int, fade_ms: int = 15) -> wire.Played | wire.Flushed:
        """Stop the stream's utterance of this number. Raises StreamError if it is not the running one."""
        steps = self._connection.listeners.flush(self._state, generation, fade_ms)
        return self._client.run(steps, self._client.timeout_s)

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(errors.GlowdError):
            self._client.call(lambda: self._connection.listeners.unlisten(self._state))

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
