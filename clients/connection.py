"""A client's side of the protocol, without I/O: what to send, what was received, what to wait for.

Rules: knows no socket, thread or clock of its own. Bytes go in by `receive`, and come out of `outbox`.
Everything that may have to wait is a generator ("steps"): it yields whenever only news from the daemon can help, and
returns its result. A driver (client.py, aio.py) runs the steps and waits between them.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from clients import errors
from clients.errors import GlowdError
from clients.outgoing import Outgoing, as_mel
from daemon import wire
from daemon.wire import Audio, Flushed, Message, Played

T = TypeVar("T")
Steps = Generator[None, None, T]
Ending = Played | Flushed | GlowdError
Heard = Audio | Played | Flushed

log = logging.getLogger("glowd.client")


@dataclass(slots=True, eq=False)
class Inbox:
    """What one listener has heard and not read yet. `stream` may be "*"."""

    stream: str
    heard: deque[Heard] = field(default_factory=deque)
    failure: GlowdError | None = None


@dataclass(slots=True, eq=False)
class Channel:
    """One stream as its client sees it."""

    name: str
    request: wire.Open
    opened: wire.Opened | None = None
    out: Outgoing | None = None
    flushing: bool = False
    closed: bool = False
    spoken: int = -1  # the last generation that got frames
    read: int = -1  # the last generation whose audio was read to its end, or flushed
    state: str = "opening"
    info: dict[str, Any] = field(default_factory=dict)
    audio: deque[Audio] = field(default_factory=deque)
    endings: dict[int, Ending] = field(default_factory=dict)
    complaint: GlowdError | None = None

    @property
    def generation(self) -> int:
        return self.out.generation if self.out else 0


class Connection:
    """All streams of one client over one socket."""

    def __init__(self, client: str, now_ns: Callable[[], int]) -> None:
        self.client, self.now_ns = client, now_ns
        self.outbox: deque[list[bytes]] = deque()
        self.welcome: wire.Welcome | None = None
        self.failure: GlowdError | None = None
        self.channels: dict[str, Channel] = {}
        self.listeners: list[Inbox] = []
        self.daemon_states: deque[wire.State] = deque(maxlen=1)
        self.pong: wire.Pong | None = None

    def send(self, message: Message) -> None:
        self.outbox.append(wire.encode(message))

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
                self.pong = message
            case wire.Error():
                self._on_error(message)
            case wire.State(stream=""):
                self.daemon_states.append(message)
            case wire.Audio():
                self._on_audio(message)
            case wire.Opened() | wire.Credit() | wire.Flushed() | wire.Played() | wire.State():
                if channel := self.channels.get(message.stream):
                    self._on_stream(channel, message)
                    self.pump(channel)
                elif isinstance(message, Played | Flushed):
                    for listener in self._listening_to(message.stream):
                        listener.heard.append(message)
            case _:
                log.warning("the daemon sent a %s, which only clients send", message.TYPE)

    def _on_stream(self, channel: Channel, message: Message) -> None:
        out = channel.out
        match message:
            case wire.Opened():
                channel.opened = message
                channel.out = self._generation(channel, message.generation, message.credit_frames)
            case wire.Credit() if out and message.generation == out.generation:
                out.grant(message.frames)
            case wire.Flushed() | wire.Played() if out and message.generation == out.generation:
                if isinstance(message, wire.Flushed) and not channel.flushing:
                    text = f"stream {channel.name} was flushed by another client"
                    channel.complaint = errors.Interrupted(text, stream=channel.name)
                self._ended(channel, message)
            case wire.State():
                channel.state, channel.info = message.state, message.info

    def _generation(self, channel: Channel, number: int, credit_frames: int) -> Outgoing:
        limit = self.welcome.limits.get("max_chunk_frames") if self.welcome else None
        return Outgoing(channel.name, number, credit_frames, limit if isinstance(limit, int) and limit > 0 else 512)

    def _ended(self, channel: Channel, ending: Ending) -> None:
        number = channel.generation
        channel.endings[number] = ending
        for old in [key for key in channel.endings if key < number - 8]:
            del channel.endings[old]
        while channel.audio and channel.audio[0].generation < number:  # nobody reads: keep at most two generations
            channel.audio.popleft()
        channel.out = self._generation(channel, number + 1, 0)
        channel.flushing = False

    def _on_audio(self, message: Audio) -> None:
        channel = self.channels.get(message.stream)
        out = channel.out if channel else None
        if channel and out and not channel.flushing and message.generation == out.generation:
            channel.audio.append(message)
        for listener in self._listening_to(message.stream):
            listener.heard.append(message)

    def _listening_to(self, stream: str) -> list[Inbox]:
        return [listener for listener in self.listeners if listener.stream in ("*", stream)]

    def _on_error(self, error: wire.Error) -> None:
        failure = errors.from_message(error)
        channel = self.channels.get(error.stream)
        if channel:
            self._on_stream_error(channel, error, failure)
        elif error.fatal and not error.stream:
            self.failure = failure
        else:
            log.warning("the daemon refused something: %s", failure)
            for listener in self.listeners:
                if listener.stream == error.stream:
                    listener.failure = failure

    def _on_stream_error(self, channel: Channel, error: wire.Error, failure: GlowdError) -> None:
        out = channel.out
        if out is None or error.code == wire.Code.UNKNOWN_STREAM:
            channel.complaint, channel.closed = failure, True
            del self.channels[channel.name]
        elif error.fatal:
            self._ended(channel, failure)
            channel.complaint = failure
        elif error.code == wire.Code.WRONG_GENERATION or error.generation < out.generation:
            log.debug("an answer to what was sent before the last generation's end was known: %s", failure)
        elif out.is_echo(error):
            log.debug("an answer to what was under way behind a refused mel: %s", failure)
        elif error.expected_frame >= 0 and out.refused(error):
            log.info("sending again from frame %d: %s", error.expected_frame, failure)
            self.pump(channel)
        else:
            channel.complaint, channel.flushing = failure, False

    # ---- what the client wants

    def pump(self, channel: Channel) -> None:
        """Send what credit allows."""
        if channel.out and not channel.flushing and not channel.closed:
            for message in channel.out.due(self.now_ns):
                self.send(message)

    def check(self, channel: Channel | None = None) -> None:
        """Raise what the daemon has complained of since the last call."""
        if channel and channel.complaint:
            complaint = channel.complaint
            channel.complaint = None if not channel.closed else complaint
            raise complaint
        if self.failure:
            raise self.failure
        if channel and channel.closed:
            raise errors.StreamError(f"stream {channel.name} is closed", stream=channel.name)

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
        channel = self.channels[request.stream] = Channel(request.stream, request)
        while channel.opened is None:
            self.check(channel)
            yield
        return channel

    def bins(self, channel: Channel) -> int:
        """Mel bins of the stream's voice."""
        voices = self.welcome.voices if self.welcome else []
        name = channel.opened.voice if channel.opened else ""
        found = [voice["format"].get("n_mels") for voice in voices if voice.get("name") == name and "format" in voice]
        return found[0] if found and isinstance(found[0], int) else 80

    def send_mel(self, channel: Channel, mel: object) -> Steps[None]:
        frames = as_mel(mel, self.bins(channel))
        self.check(channel)
        while channel.flushing or (channel.out and channel.out.end_wanted):  # the generation before must end first
            self.check(channel)
            yield
        out = channel.out
        assert out is not None, "an open stream has a generation"
        self._check_length(channel, out, len(frames))
        if len(frames):
            out.backlog.append(frames)
            channel.spoken = out.generation
        self.pump(channel)
        while out.backlog and channel.out is out and not channel.flushing:
            self.check(channel)
            yield
        self.check(channel)
        if channel.out is not out or channel.flushing:
            raise self._why_ended(channel, out.generation)

    def _check_length(self, channel: Channel, out: Outgoing, frames: int) -> None:
        """Refuse what the daemon would never give credit for: waiting would be for ever."""
        most_s = self.welcome.limits.get("max_utterance_s") if self.welcome else None
        opened = channel.opened
        if not isinstance(most_s, int | float) or opened is None:
            return
        most_frames = int(most_s * opened.rate_hz) // opened.hop
        if out.next_frame + sum(map(len, out.backlog)) + frames > most_frames:
            text = (
                f"stream {channel.name}: an utterance may have {most_frames} frames ({most_s:g} s), this one has more"
            )
            raise errors.Refused(text, wire.Code.TOO_LONG, channel.name)

    def _why_ended(self, channel: Channel, generation: int) -> GlowdError:
        ending = channel.endings.get(generation)
        if isinstance(ending, GlowdError):
            return ending
        return errors.Interrupted(f"stream {channel.name} was flushed while frames waited to be sent")

    def end(self, channel: Channel) -> None:
        """No more frames in this generation. Nothing, if it has none or has ended already."""
        self.check(channel)
        if channel.out and channel.out.started and not channel.flushing:
            channel.out.end_wanted = True
            self.pump(channel)

    def wait_played(self, channel: Channel) -> Steps[Played | Flushed | None]:
        """End the generation, and wait for its ending. The last ending, if none is running; None, if none ever was."""
        self.end(channel)
        if channel.out is None or not (channel.out.end_wanted or channel.flushing):
            last = channel.endings.get(channel.generation - 1)
            return None if isinstance(last, GlowdError) else last  # an error was raised when it came
        number = channel.generation
        while number not in channel.endings:
            self.check(channel)
            yield
        return self._unless_failed(channel, channel.endings[number])

    @staticmethod
    def _unless_failed(channel: Channel, ending: Ending) -> Played | Flushed:
        """Raise a fatal error. What this tells need not be told again at the next call."""
        if channel.complaint is ending or isinstance(channel.complaint, errors.Interrupted):
            channel.complaint = None
        if isinstance(ending, GlowdError):
            raise ending
        return ending

    def flush(self, channel: Channel, fade_ms: int) -> Steps[Played | Flushed]:
        """Stop now. Played, if the generation came to its end before the daemon read this."""
        self.check(channel)
        number, out = channel.generation, channel.out
        if not out or not out.started:
            return Flushed(channel.name, number, -1, 0)
        if not channel.flushing:
            self.send(wire.Flush(channel.name, number, fade_ms))
            channel.flushing, out.end_wanted = True, False
            out.backlog.clear()
            channel.audio.clear()
            channel.read = number
        while number not in channel.endings:
            self.check(channel)
            yield
        return self._unless_failed(channel, channel.endings[number])

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

    def to_read(self, channel: Channel) -> int:
        """The generation that a reader wants: the last that got frames, unless it was read; then the running one."""
        return channel.spoken if channel.spoken > channel.read else channel.generation

    def next_audio(self, channel: Channel, generation: int) -> Steps[Audio | None]:
        """The generation's next piece of audio; None when it has ended otherwise."""
        while True:
            while channel.audio and channel.audio[0].generation < generation:
                channel.audio.popleft()
            if channel.audio and channel.audio[0].generation == generation:
                piece = channel.audio.popleft()
                channel.read = generation if piece.last else channel.read
                return piece
            if channel.generation > generation:
                break
            self.check(channel)
            yield
        channel.read = max(channel.read, generation)
        if generation in channel.endings:
            self._unless_failed(channel, channel.endings[generation])
        return None

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

    def ping(self) -> Steps[int]:
        """Round trip in nanoseconds."""
        self.check()
        sent_ns = self.now_ns()
        self.send(wire.Ping(sent_ns))
        while self.pong is None or self.pong.t_client_ns < sent_ns:
            self.check()
            yield
        return self.now_ns() - sent_ns
