"""A client's side of the protocol, without I/O: what to send, what was received, what to wait for.

Rules: knows no socket and no thread; the clock is given. Bytes go in by `receive` and come out of `outbox`; `tick` keeps
the connection alive. Everything that may have to wait is a generator (`Steps`): whenever it needs a new message from the
daemon it yields what it waits for, in words, and it returns its result. A driver (client.py, aio.py) runs the steps and
waits between them. Streams are in stream_state.py.
"""

import dataclasses
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.stream_state import Steps, StreamState
from glowd.daemon import wire
from glowd.daemon.wire import Audio, Flushed, Message, Played
from glowd.daemon.wire.liveness import AwakeClock, Silence

StreamEvent = Audio | Played | Flushed

log = logging.getLogger("glowd.client")


@dataclass(slots=True, eq=False)
class ListenerState:
    """What one listener has received and not read yet. `stream` may be "*"."""

    stream: str
    events: deque[StreamEvent] = field(default_factory=deque)
    failure: GlowdError | None = None


class Connection:
    """All streams of one client over one connection to the daemon."""

    PING_EVERY_S = 5.0
    SILENCE_S = 20.0
    """A daemon that sends nothing for this long, though it is pinged and this program runs, is gone."""
    LONGEST_PASS_S = 2.0
    """A program that has not called `tick` for longer was not running: see AwakeClock."""
    TICK_EVERY_S = 0.5

    def __init__(self, client: str, endpoint: str, now_ns: Callable[[], int]) -> None:
        self.client, self.endpoint, self._clock = client, endpoint, now_ns
        self.outbox: deque[list[bytes]] = deque()
        self.welcome: wire.Welcome | None = None
        self.failure: GlowdError | None = None
        self.streams: dict[str, StreamState] = {}
        self.listeners: list[ListenerState] = []
        self.daemon_states: deque[wire.State] = deque(maxlen=1)
        self.pong: wire.Pong | None = None
        self.awake = AwakeClock(self.LONGEST_PASS_S, now_ns)
        self._silence, self._pinged_ns = Silence(self.awake), now_ns()
        self._streams_named = 0

    def send(self, message: Message) -> None:
        """Put a message into the outbox. Raises wire.LocalError for one that the protocol does not allow."""
        self.outbox.append(wire.encode(message))

    def now_ns(self) -> int:
        """The time of the given clock."""
        return self._clock()

    def check(self) -> None:
        """Raise what has ended the connection."""
        if self.failure:
            raise self.failure

    @property
    def usable(self) -> bool:
        """Whether the daemon has answered and the connection has not failed."""
        return self.welcome is not None and self.failure is None

    def fail(self, reason: str) -> None:
        """The daemon cannot be reached: everything that waits raises DaemonGone. The first reason counts."""
        self.failure = self.failure or errors.DaemonGone(reason)

    def transport_lost(self, reason: str) -> None:
        """The socket has lost the daemon. Before `welcome` that is no failure: the socket connects again by itself."""
        if self.welcome:
            self.fail(reason)

    def tick(self) -> None:
        """Call this every TICK_EVERY_S, after the messages that have arrived were received.

        It pings the daemon, and fails when the daemon stays silent while this program runs.
        """
        now_ns, silent_s = self.now_ns(), self._silence.seconds
        if not self.usable:
            return
        if silent_s > self.SILENCE_S:
            self.fail(f"the daemon at {self.endpoint} has sent nothing for {self.SILENCE_S:g} s")
        elif now_ns - self._pinged_ns >= 1e9 * self.PING_EVERY_S:
            self._pinged_ns = now_ns
            self.send(wire.Ping(now_ns))

    # ---- what the daemon says

    def receive(self, parts: list[bytes]) -> None:
        """Take one multipart message. One that cannot be decoded is the daemon's fault: it is logged and skipped."""
        self._silence.end()
        try:
            message = wire.decode(parts, wire.CLIENT_LIMITS)
        except wire.WireError as fault:
            log.warning("skipped an unreadable message from the daemon: %s", fault)
            return
        match message:
            case wire.Welcome():
                self.welcome = message
            case wire.Pong():
                if message.t_client_ns:  # 0: the daemon asks whether the client is alive; to receive it is enough
                    self.pong = message
            case wire.Error():
                self._on_error(message)
            case wire.Warning() if message.stream not in self.streams:
                log.warning("the daemon warns: %s (%d %s)", message.text, message.code, message.name)
            case wire.State(stream=""):
                self.daemon_states.append(message)
            case (
                wire.Opened()
                | wire.Credit()
                | wire.State()
                | wire.Warning()
                | wire.Audio()
                | wire.Flushed()
                | wire.Played()
            ):
                if stream := self.streams.get(message.stream):
                    stream.receive(message)
                if isinstance(message, StreamEvent):
                    for listener in self._listeners_of(message.stream):
                        listener.events.append(message)
            case _:
                log.warning("skipped a message of type %s from the daemon: only clients send it", message.TYPE)

    def _listeners_of(self, stream: str) -> list[ListenerState]:
        return [listener for listener in self.listeners if listener.stream in ("*", stream)]

    def _on_error(self, error: wire.Error) -> None:
        if stream := self.streams.get(error.stream):
            stream.receive_error(error)
            if stream.closed:
                del self.streams[error.stream]
        elif error.fatal and not error.stream:
            self.failure = errors.from_message(error)
        else:
            log.warning("the daemon rejected a message: %s", error.text)
            for listener in self.listeners:
                if listener.stream == error.stream:
                    listener.failure = errors.from_message(error)

    # ---- what the client wants

    def greet(self) -> Steps[wire.Welcome]:
        """Send `hello` and wait for `welcome`."""
        self.send(wire.Hello(self.client, max_version=wire.VERSION, t_client_ns=self.now_ns()))
        while self.welcome is None:
            self.check()
            yield f"`welcome` of the daemon at {self.endpoint}"
        return self.welcome

    def refresh(self) -> Steps[wire.Welcome]:
        """Say `hello` again, for a `welcome` with what is ready now."""
        before = self.welcome
        self.check()
        self.send(wire.Hello(self.client, max_version=wire.VERSION, t_client_ns=self.now_ns()))
        while self.welcome is None or self.welcome is before:
            self.check()
            yield f"`welcome` of the daemon at {self.endpoint}"
        return self.welcome

    def open(self, request: wire.Open) -> Steps[StreamState]:
        """Open a stream and wait for `opened`. A request without a name gets one that no other client uses."""
        self.check()
        if not request.stream:
            request = dataclasses.replace(request, stream=self._new_stream_name())
        if request.stream in self.streams:
            raise errors.StreamError(f"this client has a stream {request.stream}; close it or choose another name")
        self.send(request)
        stream = self.streams[request.stream] = StreamState(request.stream, self, request.format)
        try:
            opened = yield from stream.wait_opened()
        finally:
            if stream.opened is None:  # refused, or the caller stopped waiting
                self.close(stream)
        self._check_audio_rate(request, stream)
        return opened

    def _check_audio_rate(self, request: wire.Open, stream: StreamState) -> None:
        """Raise Refused if the daemon has ignored the rate that was asked for: it does not know the field yet."""
        assert stream.opened is not None
        if stream.opened.audio_rate_hz != request.audio_rate_hz:
            self.close(stream)
            text = (
                f"this daemon cannot send audio at {request.audio_rate_hz} Hz; leave audio_rate_hz out, or update glowd"
            )
            raise errors.Refused(text, stream=request.stream)

    def _new_stream_name(self) -> str:
        self._streams_named += 1
        return f"{self.client[:40]}-{secrets.token_hex(3)}-{self._streams_named}"

    def close(self, stream: StreamState) -> None:
        """Close a stream. Does nothing if it is closed."""
        if not stream.closed:
            stream.closed = True
            self.streams.pop(stream.name, None)
            if not self.failure:
                self.send(wire.Close(stream.name))

    def leave(self) -> None:
        """Close all streams and say `bye`."""
        for stream in list(self.streams.values()):
            self.close(stream)
        if self.usable:
            self.send(wire.Bye())

    def listen(self, request: wire.Listen) -> ListenerState:
        """Subscribe to the audio and endings of a stream of any client, "*" for all."""
        listener = ListenerState(request.stream)
        self.send(request)
        self.listeners.append(listener)
        return listener

    def unlisten(self, listener: ListenerState) -> None:
        """End a subscription. Does nothing if it has ended."""
        if listener in self.listeners:
            self.listeners.remove(listener)
            if not self.failure:
                self.send(wire.Unlisten(listener.stream))

    def next_event(self, listener: ListenerState) -> Steps[StreamEvent]:
        """The next event that the listener has not read."""
        while not listener.events:
            if listener.failure:
                raise listener.failure
            self.check()
            yield f"audio of stream {listener.stream}"
        return listener.events.popleft()

    def flush_listened(self, listener: ListenerState, generation: int, fade_ms: int) -> Steps[Played | Flushed]:
        """Flush the listener's stream, which may be another client's, and wait for its ending."""
        self.check()
        self.send(wire.Flush(listener.stream, generation, fade_ms))
        while True:
            for event in listener.events:
                if not isinstance(event, Audio) and event.generation >= generation:
                    return event
            if listener.failure:
                raise listener.failure
            self.check()
            yield f"the ending of stream {listener.stream}"

    def status(self) -> Steps[wire.State]:
        """The daemon's state and its figures."""
        self.check()
        self.daemon_states.clear()
        self.send(wire.Status())
        while not self.daemon_states:
            self.check()
            yield "the state of the daemon"
        return self.daemon_states[-1]

    def ping(self) -> Steps[int]:
        """Round trip in nanoseconds."""
        self.check()
        sent_ns = self.now_ns()
        self.send(wire.Ping(sent_ns))
        while self.pong is None or self.pong.t_client_ns < sent_ns:
            self.check()
            yield "`pong` of the daemon"
        return self.now_ns() - sent_ns
