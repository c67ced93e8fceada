"""A client's side of the protocol, without I/O: what to send, what was received, what to wait for.

Rules: knows no socket and no thread; the clock is given. Bytes go in by `receive` and come out of `outbox`; `tick` keeps
the connection alive. Everything that may have to wait is a generator (`Steps`): whenever it needs a new message from the
daemon it yields what it waits for, in words, and it returns its result. A driver (client.py, aio.py) runs the steps and
waits between them. Streams are in stream_state.py, listeners in listening.py.
"""

import dataclasses
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.listening import Listeners, StreamEvent
from glowd.clients.steps import Steps
from glowd.clients.stream_state import MAY_PASS, StreamState
from glowd.daemon import wire
from glowd.daemon.wire import Message
from glowd.daemon.wire.liveness import AwakeClock, Silence

RECONNECT_S = 30.0
"""How long a client waits for a daemon that is lost, unless it was told otherwise."""

log = logging.getLogger("glowd.client")
REFUSALS = (wire.Code.NOT_ALLOWED, wire.Code.BAD_FIELD, wire.Code.WRONG_STATE)
"""Of a question about the whole daemon."""
ENDS_SESSION = {
    wire.Code.STOPPING: "is stopping",
    wire.Code.IDLE_TIMEOUT: "has disconnected this client, which was silent because it did not run",
}
"""Errors after which the client connects again: the daemon may be started again, and this program runs again."""

loss_log = logging.getLogger("glowd.client.loss")
"""Says when the daemon is lost and when it is back; a command shows that also where it shows no other message."""


@dataclass(slots=True)
class Loss:
    """The daemon is lost and may come back. `is_greeted`: it is back, and streams are being opened again."""

    reason: str
    lasts: Silence
    is_greeted: bool = False
    asked_at_s: float = 0.0


class Connection:
    """All streams of one client over one connection to the daemon."""

    PING_EVERY_S = 5.0
    SILENCE_S = 20.0
    """A daemon that sends nothing for this long, though it is pinged and this program runs, is gone."""
    LONGEST_PASS_S = 2.0
    """A program that has not called `tick` for longer was not running: see AwakeClock."""
    TICK_EVERY_S = 0.5
    ASK_EVERY_S = 0.1
    """How often a daemon that is back, and not ready yet, is asked again."""

    def __init__(self, client: str, endpoint: str, now_ns: Callable[[], int], reconnect_s: float = 0.0) -> None:
        """`reconnect_s`: how long to wait for a daemon that is lost to come back."""
        self.client, self.endpoint, self._clock, self._reconnect_s = client, endpoint, now_ns, reconnect_s
        self.sockets = 1
        """Counts the sockets: when it changes, the driver makes a new one, and nothing more comes from the old one."""
        self.greetings = 0
        """Counts the daemons that said `welcome`: what the one before was asked, the new one must be asked again."""
        self._loss: Loss | None = None
        self.outbox: deque[list[bytes]] = deque()
        self.welcome: wire.Welcome | None = None
        self.failure: GlowdError | None = None
        self.streams: dict[str, StreamState] = {}
        self.listeners = Listeners(self)
        self.daemon_states: deque[wire.State] = deque(maxlen=1)
        self.pong: wire.Pong | None = None
        self._asking = 0
        self._refusal: GlowdError | None = None
        """How many questions wait for their answers, and that the daemon does not allow one."""
        self.awake = AwakeClock(self.LONGEST_PASS_S, now_ns)
        self._silence, self._pinged_ns = Silence(self.awake), now_ns()
        self._streams_named = 0

    def send(self, message: Message) -> None:
        """Put a message into the outbox. Raises wire.LocalError for one that the protocol does not allow.

        While the daemon is lost it is dropped: when it is back it is told the state of all streams.
        """
        parts = wire.encode(message)
        if self._loss is None or self._loss.is_greeted:
            self.outbox.append(parts)

    def now_ns(self) -> int:
        """The time of the given clock."""
        return self._clock()

    def check(self) -> None:
        """Raise what has ended the connection."""
        if self.failure:
            raise self.failure

    @property
    def usable(self) -> bool:
        """Whether the daemon has answered, is not lost, and the connection has not failed."""
        is_there = self._loss is None or self._loss.is_greeted
        return self.welcome is not None and self.failure is None and is_there

    @property
    def is_lost(self) -> bool:
        """Whether the daemon is lost, or back and some streams are not open again."""
        return self._loss is not None

    @property
    def absence(self) -> str:
        """What to say of a daemon that is lost, in the error of a wait; "" if it is not."""
        return f"; {self._loss.reason} {self._loss.lasts.seconds:.1f} s ago" if self._loss else ""

    def fail(self, reason: str) -> None:
        """The daemon cannot be reached: everything that waits raises DaemonGone. The first reason counts."""
        self.failure = self.failure or errors.DaemonGone(reason)

    def reject(self, failure: GlowdError) -> None:
        """The daemon must not be used: everything that waits raises this."""
        self.outbox.clear()
        self.failure, self._loss = self.failure or failure, None

    def transport_lost(self, reason: str) -> None:
        """The socket has lost the daemon. Before `welcome` that is no failure: the socket connects again by itself."""
        if self.welcome:
            self.lose(reason)

    @property
    def tick_every_s(self) -> float:
        """How often to call `tick`."""
        return self.ASK_EVERY_S if self._loss else min(self.TICK_EVERY_S, self.PING_EVERY_S)

    def tick(self) -> None:
        """Call this every `tick_every_s`, after the messages that have arrived were received.

        It pings the daemon, and fails when the daemon stays silent while this program runs, or stays away.
        """
        now_ns, silent_s = self.now_ns(), self._silence.seconds
        if self.failure or self.welcome is None:
            return
        if self._loss:
            self._tick_loss(self._loss)
        elif silent_s > self.SILENCE_S:
            self.lose(f"the daemon at {self.endpoint} has sent nothing for {self.SILENCE_S:g} s")
        elif now_ns - self._pinged_ns >= 1e9 * self.PING_EVERY_S:
            self._pinged_ns = now_ns
            self.send(wire.Ping(now_ns))

    # ---- a daemon that is lost, and comes back

    def lose(self, reason: str) -> None:
        """The daemon is gone: wait for it to come back, on a new socket; or fail, if that is not wanted."""
        if self.failure or not self._reconnect_s:
            self.fail(reason)
            return
        if self._loss is None:
            loss_log.warning("%s; waiting %g s for it to come back", reason, self._reconnect_s)
            self._loss = Loss(reason, Silence(self.awake))
        self._loss.is_greeted = False
        self.sockets += 1
        for stream in self.streams.values():
            stream.lose()
        self._greet_again()

    def _greet_again(self) -> None:
        self.outbox.clear()
        self.outbox.append(wire.encode(self._hello()))

    def _tick_loss(self, loss: Loss) -> None:
        seconds = loss.lasts.seconds
        if seconds > self._reconnect_s:
            self._give_up(loss)
        elif seconds - loss.asked_at_s >= self.ASK_EVERY_S and loss.is_greeted:
            loss.asked_at_s = seconds
            for stream in [one for one in self.streams.values() if one.lost and not one.lost.is_asked]:
                self._open_again(stream)

    def _open_again(self, stream: StreamState) -> None:
        """Open a stream, unless it comes after one that is not open yet."""
        before = self.streams.get(stream.kept.request.after)
        if before is None or not before.lost:
            stream.open_again()

    def _give_up(self, loss: Loss) -> None:
        """The daemon has not come back in time, or does not accept some streams again."""
        text = f"{loss.reason}, and it was not back within {self._reconnect_s:g} s"
        self._loss = None
        if not loss.is_greeted:
            self.fail(text)
            return
        for stream in [one for one in self.streams.values() if one.lost]:
            stream.give_up(str(stream.lost.refusal or "it does not answer") if stream.lost else text)

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self.welcome = welcome
        loss = self._loss
        if loss is None or loss.is_greeted:
            return
        loss.is_greeted = True
        self.greetings += 1
        self.listeners.listen_again()
        for stream in list(self.streams.values()):
            self._open_again(stream)

    def _end_loss(self) -> None:
        """Go on as usual, once every stream is open again."""
        if self._loss and self._loss.is_greeted and not any(stream.lost for stream in self.streams.values()):
            loss_log.warning("the daemon at %s is back after %.1f s", self.endpoint, self._loss.lasts.seconds)
            self._loss = None

    def forget(self, stream: StreamState) -> None:
        """The stream is closed."""
        self.streams.pop(stream.name, None)

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
                self._welcomed(message)
            case wire.Pong():
                if message.t_client_ns:  # 0: the daemon asks whether the client is alive; to receive it is enough
                    self.pong = message
            case wire.Error():
                self._on_error(message)
            case wire.Warning() if message.stream not in self.streams:
                log.warning("the daemon warns: %s (%d %s)", message.text, message.code, message.name)
                self.listeners.warn(message)
            case wire.State(stream=""):
                self.daemon_states.append(message)
            case (
                wire.Opened()
                | wire.Credit()
                | wire.Position()
                | wire.State()
                | wire.Warning()
                | wire.Audio()
                | wire.Flushed()
                | wire.Played()
            ):
                if stream := self.streams.get(message.stream):
                    stream.receive(message)
                if isinstance(message, StreamEvent):
                    self.listeners.receive(message)
            case _:
                log.warning("skipped a message of type %s from the daemon: only clients send it", message.TYPE)
        self._end_loss()

    def _on_error(self, error: wire.Error) -> None:
        if error.code in ENDS_SESSION and self._reconnect_s and self.welcome:
            self.lose(f"the daemon at {self.endpoint} {ENDS_SESSION[wire.Code(error.code)]}")
        elif stream := self.streams.get(error.stream):
            stream.receive_error(error)
            if stream.closed:
                del self.streams[error.stream]
        elif error.fatal and not error.stream and error.code in MAY_PASS and self._loss:
            self._loss.reason = errors.from_message(error).args[0]
            self._greet_again()
        elif error.fatal and not error.stream:
            self.failure = self.failure or errors.from_message(error)
        elif error.code in REFUSALS and not error.stream and self._asking:
            self._refusal = errors.from_message(error)
        else:
            log.warning("the daemon rejected a message: %s", error.text)
            is_of_all = error.code == wire.Code.NOT_ALLOWED and not error.stream
            self.listeners.fail("*" if is_of_all else error.stream, errors.from_message(error))

    # ---- what the client wants

    def _hello(self) -> wire.Hello:
        return wire.Hello(self.client, max_version=wire.VERSION, t_client_ns=self.now_ns())

    def _ask(self, message: Callable[[], Message], is_answered: Callable[[], object], what: str) -> Steps[None]:
        """Send a message and wait for its answer `what`; ask again if the daemon is lost meanwhile and comes back."""
        asked = None
        self._refusal, self._asking = None, self._asking + 1
        try:
            while True:
                self.check()
                if self._refusal:
                    raise self._refusal
                if asked is not None and is_answered():
                    return
                if asked != self.greetings:
                    asked = self.greetings
                    self.send(message())
                yield what
        finally:
            self._asking -= 1

    def greet(self) -> Steps[wire.Welcome]:
        """Send `hello` and wait for `welcome`."""
        yield from self._ask(self._hello, lambda: self.welcome, f"`welcome` of the daemon at {self.endpoint}")
        assert self.welcome
        return self.welcome

    def refresh(self) -> Steps[wire.Welcome]:
        """Say `hello` again, for a `welcome` with what is ready now."""
        before = self.welcome
        what = f"`welcome` of the daemon at {self.endpoint}"
        yield from self._ask(self._hello, lambda: self.welcome is not before, what)
        assert self.welcome
        return self.welcome

    def open(self, request: wire.Open) -> Steps[StreamState]:
        """Open a stream and wait for `opened`. A request without a name gets one that no other client uses."""
        self.check()
        if not request.stream:
            request = dataclasses.replace(request, stream=self._new_stream_name())
        if request.stream in self.streams:
            raise errors.StreamError(f"this client has a stream {request.stream}; close it or choose another name")
        stream = StreamState(request, self, bool(self._reconnect_s))
        self.send(stream.kept.request)  # refuses what the protocol does not allow, also while the daemon is lost
        if not self.usable:
            stream.lose()
        self.streams[request.stream] = stream
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
            self.forget(stream)
            if self.usable:
                self.send(wire.Close(stream.name))
            self._end_loss()

    def leave(self) -> None:
        """Close all streams and say `bye`. Without a daemon that would read it, nothing is left to send."""
        for stream in list(self.streams.values()):
            self.close(stream)
        if self.usable:
            self.send(wire.Bye())
        else:
            self.outbox.clear()

    def status(self) -> Steps[wire.State]:
        """The daemon's state and its figures."""
        self.daemon_states.clear()
        yield from self._ask(wire.Status, lambda: self.daemon_states, "the state of the daemon")
        return self.daemon_states[-1]

    def place(self, engine: str, action: str) -> Steps[wire.State]:
        """Say whether an engine gets streams; the daemon's state then. Raises Refused."""
        if self.welcome and self.welcome.version < wire.since(wire.Engine):
            raise errors.Refused("this daemon cannot cordon engines; update glowd")
        self.daemon_states.clear()
        yield from self._ask(lambda: wire.Engine(engine, action), lambda: self.daemon_states, f"{action} of {engine}")
        return self.daemon_states[-1]

    def ping(self) -> Steps[int]:
        """Round trip in nanoseconds."""
        sent_ns = 0

        def message() -> wire.Ping:
            nonlocal sent_ns
            sent_ns = self.now_ns()
            return wire.Ping(sent_ns)

        yield from self._ask(message, lambda: self.pong and self.pong.t_client_ns >= sent_ns, "`pong` of the daemon")
        return self.now_ns() - sent_ns
