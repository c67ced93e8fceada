"""A client's side of the protocol, without I/O: what to send, what was received, what to wait for.

Rules: knows no socket, thread or clock of its own. Bytes go in by `receive`, and come out of `outbox`.
Everything that may have to wait is a generator ("steps"): it yields whenever only news from the daemon can help, and
returns its result. A driver (client.py, aio.py) runs the steps and waits between them. Streams are in stream_state.py.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.stream_state import Channel, Steps
from glowd.daemon import wire
from glowd.daemon.wire import Audio, Flushed, Message, Played

Heard = Audio | Played | Flushed

log = logging.getLogger("glowd.client")


@dataclass(slots=True, eq=False)
class Inbox:
    """What one listener has heard and not read yet. `stream` may be "*"."""

    stream: str
    heard: deque[Heard] = field(default_factory=deque)
    failure: GlowdError | None = None


class Connection:
    """All streams of one client over one socket."""

    def __init__(self, client: str, now_ns: Callable[[], int]) -> None:
        self.client, self._clock = client, now_ns
        self.outbox: deque[list[bytes]] = deque()
        self.welcome: wire.Welcome | None = None
        self.failure: GlowdError | None = None
        self.channels: dict[str, Channel] = {}
        self.listeners: list[Inbox] = []
        self.daemon_states: deque[wire.State] = deque(maxlen=1)
        self.pong: wire.Pong | None = None

    def send(self, message: Message) -> None:
        self.outbox.append(wire.encode(message))

    def now_ns(self) -> int:
        return self._clock()

    def check(self) -> None:
        """Raise what has ended the connection."""
        if self.failure:
            raise self.failure

    def lost(self, why: str) -> None:
        """The transport is gone: everything that waits fails."""
        self.failure = self.failure or errors.DaemonGone(why)

    # ---- what the daemon says

    def receive(self, parts: list[bytes]) -> None:
        """Take one multipart message. What cannot be read is the daemon's fault, logged and skipped."""
        try:
            message = wire.decode(parts, wire.CLIENT_LIMITS)
        except wire.WireError as fault:
            log.warning("skipped an unreadable message of the daemon: %s", fault)
            return
        match message:
            case wire.Welcome():
                self.welcome = message
            case wire.Pong():
                if message.t_client_ns:  # the others only ask whether we are there
                    self.pong = message
            case wire.Error():
                self._on_error(message)
            case wire.State(stream=""):
                self.daemon_states.append(message)
            case wire.Opened() | wire.Credit() | wire.State() | wire.Audio() | wire.Flushed() | wire.Played():
                if channel := self.channels.get(message.stream):
                    channel.receive(message)
                if isinstance(message, Heard):
                    for listener in self._listening_to(message.stream):
                        listener.heard.append(message)
            case _:
                log.warning("the daemon sent a %s, which only clients send", message.TYPE)

    def _listening_to(self, stream: str) -> list[Inbox]:
        return [listener for listener in self.listeners if listener.stream in ("*", stream)]

    def _on_error(self, error: wire.Error) -> None:
        if channel := self.channels.get(error.stream):
            channel.refuse(error)
            if channel.closed:
                del self.channels[error.stream]
        elif error.fatal and not error.stream:
            self.failure = errors.from_message(error)
        else:
            log.warning("the daemon refused something: %s", error.text)
            for listener in self.listeners:
                if listener.stream == error.stream:
                    listener.failure = errors.from_message(error)

    # ---- what the client wants

    def greet(self) -> Steps[wire.Welcome]:
        self.send(wire.Hello(self.client, t_client_ns=self.now_ns()))
        while self.welcome is None:
            self.check()
            yield
        return self.welcome

    def open(self, request: wire.Open) -> Steps[Channel]:
        self.check()
        if request.stream in self.channels:
            raise errors.StreamError(f"this client has a stream {request.stream}; close it or choose another name")
        self.send(request)
        channel = self.channels[request.stream] = Channel(request, self)
        try:
            return (yield from channel.wait_opened())
        finally:
            if channel.opened is None:  # refused, or nobody waits for it any more
                self.close(channel)

    def close(self, channel: Channel) -> None:
        if not channel.closed:
            channel.closed = True
            self.channels.pop(channel.name, None)
            if not self.failure:
                self.send(wire.Close(channel.name))

    def leave(self) -> None:
        """Close everything, with a word to the daemon."""
        for channel in list(self.channels.values()):
            self.close(channel)
        if self.welcome and not self.failure:
            self.send(wire.Bye())

    def listen(self, stream: str) -> Inbox:
        listener = Inbox(stream)
        self.listeners.append(listener)
        self.send(wire.Listen(stream))
        return listener

    def unlisten(self, listener: Inbox) -> None:
        if listener in self.listeners:
            self.listeners.remove(listener)
            if not self.failure:
                self.send(wire.Unlisten(listener.stream))

    def flush_heard(self, listener: Inbox, generation: int, fade_ms: int) -> Steps[Played | Flushed]:
        """Flush a stream that may be another client's."""
        self.check()
        self.send(wire.Flush(listener.stream, generation, fade_ms))
        while True:
            for heard in listener.heard:
                if not isinstance(heard, Audio) and heard.generation >= generation:
                    return heard
            if listener.failure:
                raise listener.failure
            self.check()
            yield

    def next_heard(self, listener: Inbox) -> Steps[Heard]:
        while not listener.heard:
            if listener.failure:
                raise listener.failure
            self.check()
            yield
        return listener.heard.popleft()

    def status(self) -> Steps[wire.State]:
        self.check()
        self.daemon_states.clear()
        self.send(wire.Status())
        while not self.daemon_states:
            self.check()
            yield
        return self.daemon_states[-1]

    def beat(self) -> None:
        """A sign of life, so that neither side takes the other for gone."""
        if self.welcome and not self.failure:
            self.send(wire.Ping(self.now_ns()))

    def ping(self) -> Steps[int]:
        """Round trip in nanoseconds."""
        self.check()
        sent_ns = self.now_ns()
        self.send(wire.Ping(sent_ns))
        while self.pong is None or self.pong.t_client_ns < sent_ns:
            self.check()
            yield
        return self.now_ns() - sent_ns
