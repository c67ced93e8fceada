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
from glowd.clients.gateways import CLOSED, REFUSED, UNREACHED, Gateways
from glowd.clients.listening import Listeners, StreamEvent
from glowd.clients.questions import Questions
from glowd.clients.steps import Steps
from glowd.clients.stream_state import MAY_PASS, StreamState
from glowd.clients.voices import other_voices
from glowd.daemon import wire
from glowd.daemon.wire import Message
from glowd.daemon.wire.liveness import AwakeClock, Silence

RECONNECT_S = 30.0
"""How long a client waits for a daemon that is lost, unless it was told otherwise."""

log = logging.getLogger("glowd.client")
ENDS_SESSION = {
    wire.Code.STOPPING: "is stopping",
    wire.Code.IDLE_TIMEOUT: "has disconnected this client, which was silent because it did not run",
    wire.Code.NO_HELLO: "was started again, and ZeroMQ has connected to it before this program knew",
}
"""Errors after which the client connects again: the daemon may be started again, and this program runs again."""

loss_log = logging.getLogger("glowd.client.loss")
"""Says when the daemon is lost and when it is back; a command shows that also where it shows no other message."""


@dataclass(slots=True)
class Loss:
    """The daemon at the address `lost_by` is lost, and it, or another one, may take over.

    `is_greeted`: one has said welcome, and streams are being opened again.
    """

    reason: str
    lasts: Silence
    lost_by: str
    is_greeted: bool = False
    greeted_at_s: float = 0.0
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
    """How often a daemon that is back, and not ready yet, is asked again; and the least time between two sockets."""
    MOVE_ON_S = 5.0
    """A daemon that refuses streams for so long is left for another one, if there is any."""

    def __init__(self, client: str, gateways: Gateways, now_ns: Callable[[], int], reconnect_s: float = 0.0) -> None:
        """`reconnect_s`: how long to wait for a daemon that is lost to come back, or for another one to take over."""
        self.client, self.gateways, self._clock, self._reconnect_s = client, gateways, now_ns, reconnect_s
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
        self.questions = Questions(self)
        self.awake = AwakeClock(self.LONGEST_PASS_S, now_ns)
        self._silence, self._pinged_ns = Silence(self.awake), now_ns()
        self._try, self._has_failed, self._moves_on = Silence(self.awake), False, True
        """How long the socket has tried to reach the daemon, whether in vain, and whether another one is tried next."""
        self.daemon_ahead_ns = 0
        """By how much the daemon's clock is ahead of this one, about."""
        self._streams_named = 0

    def send(self, message: Message) -> None:
        """Put a message into the outbox. Raises wire.LocalError for one that the protocol does not allow.

        While the daemon is lost it is dropped: when it is back it is told the state of all streams.
        """
        parts = wire.encode(message)
        if self._loss is None or self._loss.is_greeted:
            self.outbox.append(parts)

    @property
    def endpoint(self) -> str:
        """The daemon's address, for people."""
        return self.gateways.current.shown

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
        return f"; {self._loss.reason} {self._loss.lasts.seconds:.1f} s ago{self.gateways.aside}" if self._loss else ""

    def not_running(self, waited_s: float) -> errors.NotRunning:
        """The error when no daemon has answered from the beginning."""
        if self.gateways.has_others:
            self.gateways.note_silence()
        return errors.not_running(self.gateways.shown, waited_s, self.gateways.reasons, self.gateways.advice)

    def fail(self, reason: str) -> None:
        """The daemon cannot be reached: everything that waits raises DaemonGone. The first reason counts."""
        self.failure = self.failure or errors.DaemonGone(reason)

    def reject(self, failure: GlowdError) -> None:
        """The daemon must not be used: everything that waits raises this."""
        self.outbox.clear()
        self.failure, self._loss = self.failure or failure, None

    def transport_lost(self, reason: str, weight: int = CLOSED) -> None:
        """The socket has lost the daemon, or was turned away. Before `welcome` that ends nothing: it is tried again."""
        if self.usable:
            self.lose(f"the daemon at {self.endpoint} {reason}")
        else:
            self._turned_away(reason, weight)

    def not_reached(self, reason: str, weight: int = UNREACHED) -> None:
        """The socket has not reached the daemon, and goes on trying."""
        if not self.usable:
            self._turned_away(reason, weight, is_over=self.gateways.has_others)

    def _turned_away(self, reason: str, weight: int = REFUSED, is_over: bool = True) -> None:
        """A try to reach a daemon has failed. `is_over`: a new socket is needed, unless it is the very first one."""
        self.gateways.note(reason, weight)
        self._has_failed = self._has_failed or (is_over and (self.gateways.has_others or self._loss is not None))

    @property
    def tick_every_s(self) -> float:
        """How often to call `tick`."""
        is_trying = self._loss or (self.welcome is None and self.gateways.has_others)
        return self.ASK_EVERY_S if is_trying else min(self.TICK_EVERY_S, self.PING_EVERY_S)

    def tick(self) -> None:
        """Call this every `tick_every_s`, after the messages that have arrived were received.

        It pings the daemon, and fails when the daemon stays silent while this program runs, or stays away.
        """
        now_ns, silent_s = self.now_ns(), self._silence.seconds
        if not self.usable and not self.failure:
            self._try_again()
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

    def lose(self, reason: str, moves_on: bool = True) -> None:
        """The daemon is gone: wait on a new socket for it, or first for another one (`moves_on`); fail if that is not wanted."""
        if self.failure or not self._reconnect_s:
            self.fail(reason)
            return
        if self._loss is None:
            others = f"; trying {self.gateways.shown}" if self.gateways.has_others else ""
            loss_log.warning("%s; waiting %g s for it to come back%s", reason, self._reconnect_s, others)
            self._loss = Loss(reason, Silence(self.awake), self.endpoint)
        self._loss.is_greeted = False
        self.outbox.clear()
        for stream in self.streams.values():
            stream.lose()
        self.gateways.note(reason, CLOSED)
        self._has_failed, self._moves_on = True, moves_on
        self._try_again()

    def _try_again(self) -> None:
        """A new socket, to the next daemon of the list, if the one that is there is of no use."""
        is_late = self.gateways.has_others and self._try.seconds >= self.gateways.patience_s
        if not is_late and not (self._has_failed and self._try.seconds >= self.ASK_EVERY_S):
            return
        if self._moves_on:
            self.gateways.go_on()
        self._try, self._has_failed, self._moves_on = Silence(self.awake), False, True
        self.sockets += 1
        self.outbox.clear()
        self.outbox.append(wire.encode(self.hello()))

    def _tick_loss(self, loss: Loss) -> None:
        seconds = loss.lasts.seconds
        refusals = [one.lost.refusal for one in self.streams.values() if one.lost and one.lost.refusal]
        is_left = loss.is_greeted and self.gateways.has_others and seconds - loss.greeted_at_s > self.MOVE_ON_S
        if seconds > self._reconnect_s:
            self._give_up(loss)
        elif is_left and refusals:
            self.lose(f"it refuses to go on: {refusals[0]}")
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
        self._loss = None
        if not loss.is_greeted:
            self.gateways.note_silence()
            self.fail(f"{loss.reason}, and it was not back within {self._reconnect_s:g} s{self.gateways.aside}")
            return
        for stream in [one for one in self.streams.values() if one.lost]:
            refusal = stream.lost.refusal if stream.lost else None
            stream.give_up(f"{refusal or 'it does not answer'}{self.gateways.aside}")

    def _welcomed(self, welcome: wire.Welcome) -> None:
        loss = self._loss
        for voice in other_voices(self.welcome, welcome, self.streams.values()) if loss else ():
            loss_log.warning("the daemon at %s has other weights or settings for voice %s", self.endpoint, voice)
        self.welcome = welcome
        self.daemon_ahead_ns = welcome.t_daemon_ns - (welcome.t_client_ns + self.now_ns()) // 2
        if loss is None or loss.is_greeted:
            return
        loss.is_greeted, loss.greeted_at_s = True, loss.lasts.seconds
        self.greetings += 1
        self.listeners.listen_again()
        for stream in [one for one in self.streams.values() if one.lost]:  # not one that was opened before this welcome
            self._open_again(stream)

    def _end_loss(self) -> None:
        """Go on as usual, once every stream is open again."""
        if self._loss and self._loss.is_greeted and not any(stream.lost for stream in self.streams.values()):
            does = "is back" if self.endpoint == self._loss.lost_by else "goes on"
            loss_log.warning("the daemon at %s %s after %.1f s", self.endpoint, does, self._loss.lasts.seconds)
            self._loss = None
            self.gateways.settle()

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
            case wire.Pong() | wire.State(stream=""):
                self.questions.receive(message)
            case wire.Error():
                self._on_error(message)
            case wire.Warning() if message.stream not in self.streams:
                log.warning("the daemon warns: %s (%d %s)", message.text, message.code, message.name)
                self.listeners.warn(message)
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
        if error.code in ENDS_SESSION and self._reconnect_s and self.usable and self._may_go_on(error):
            why = f"the daemon at {self.endpoint} {ENDS_SESSION[wire.Code(error.code)]}"
            self.lose(why, error.code == wire.Code.STOPPING)
        elif stream := self.streams.get(error.stream):
            stream.receive_error(error)
            if stream.closed:
                del self.streams[error.stream]
        elif error.fatal and not error.stream:
            self._on_refused(error)
        elif not self.questions.refuse(error):
            log.warning("the daemon rejected a message: %s", error.text)
            is_of_all = error.code == wire.Code.NOT_ALLOWED and not error.stream
            self.listeners.fail("*" if is_of_all else error.stream, errors.from_message(error))

    def _may_go_on(self, error: wire.Error) -> bool:
        """Whether an error that ends the session may be overcome: a stream that was never open needs another daemon."""
        stream = self.streams.get(error.stream)
        return self.gateways.has_others or stream is None or stream.opened is not None

    def _on_refused(self, error: wire.Error) -> None:
        """The daemon ends the session, or does not let this client in."""
        failure = errors.from_message(error)
        if not self.usable and (self.gateways.has_others or (self._loss and error.code in {*MAY_PASS, *ENDS_SESSION})):
            self._turned_away(str(failure))
        else:
            self.failure = self.failure or failure

    # ---- what the client wants

    def hello(self) -> wire.Hello:
        """How this client greets a daemon."""
        return wire.Hello(self.client, max_version=wire.VERSION, t_client_ns=self.now_ns())

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
