"""One stream as its client sees it, without I/O: generations, endings, audio, complaints.

Rules: as connection.py, which owns the channels and gives them what the daemon says. What may have to wait is a generator
("steps") that yields whenever only news from the daemon can help.
"""

import logging
from collections import deque
from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.send_queue import Outgoing, as_mel
from glowd.daemon import wire
from glowd.daemon.wire import Audio, Flushed, Message, Played

T = TypeVar("T")
Steps = Generator[None, None, T]
Ending = Played | Flushed | GlowdError

REMEMBERED_ENDINGS = 8

log = logging.getLogger("glowd.client")


class Session(Protocol):
    """What a channel needs of its connection."""

    welcome: wire.Welcome | None

    def send(self, message: Message) -> None: ...
    def now_ns(self) -> int: ...
    def check(self) -> None: ...


class Channel:
    """One stream. Owner: its connection."""

    def __init__(self, request: wire.Open, session: Session) -> None:
        self.name, self.request, self._session = request.stream, request, session
        self.opened: wire.Opened | None = None
        self.out: Outgoing | None = None
        self.flushing = self.closed = False
        self.spoken = -1  # the last generation that got frames
        self.read = -1  # the last generation whose audio was read to its end, or flushed
        self.state, self.info = "opening", dict[str, Any]()
        self.audio: deque[Audio] = deque()
        self.endings: dict[int, Ending] = {}
        self.complaint: GlowdError | None = None

    @property
    def generation(self) -> int:
        """Number of the generation that the next frames belong to."""
        return self.out.generation if self.out else 0

    @property
    def credit_frames(self) -> int:
        """Frames that can be sent without waiting."""
        return self.out.credit if self.out else 0

    # ---- what the daemon says

    def receive(self, message: Message) -> None:
        """Anything about this stream but errors."""
        out = self.out
        match message:
            case wire.Opened():
                self.opened = message
                self.out = self._next_generation(message.generation, message.credit_frames)
            case wire.State():
                self.state, self.info = message.state, message.info
            case wire.Credit() if out and message.generation == out.generation:
                out.grant(message.frames)
            case wire.Audio() if out and message.generation == out.generation and not self.flushing:
                self.audio.append(message)
            case wire.Flushed() | wire.Played() if out and message.generation == out.generation:
                if isinstance(message, wire.Flushed) and not self.flushing:
                    self.complaint = errors.Interrupted(f"stream {self.name} was flushed by another client")
                self._ended(message)
        self.pump()

    def refuse(self, error: wire.Error) -> None:
        """An error that names this stream."""
        out, failure = self.out, errors.from_message(error)
        if out is None or error.code == wire.Code.UNKNOWN_STREAM:
            self.complaint, self.closed = failure, True
        elif error.fatal:
            self._ended(failure)
            self.complaint = failure
        elif error.code == wire.Code.WRONG_GENERATION or error.generation < out.generation:
            log.debug("an answer to what was sent before the last generation's end was known: %s", failure)
        elif out.is_echo(error):
            log.debug("an answer to what was under way behind a refused mel: %s", failure)
        elif error.expected_frame >= 0 and out.refused(error):
            log.info("sending again from frame %d: %s", error.expected_frame, failure)
            self.pump()
        else:
            self.complaint, self.flushing = failure, False

    def _limit(self, name: str) -> float | None:
        value = self._session.welcome.limits.get(name) if self._session.welcome else None
        return value if isinstance(value, int | float) and value > 0 else None

    def _next_generation(self, number: int, credit_frames: int) -> Outgoing:
        return Outgoing(self.name, number, credit_frames, int(self._limit("max_chunk_frames") or 512))

    def _ended(self, ending: Ending) -> None:
        number = self.generation
        self.endings[number] = ending
        self.endings.pop(number - REMEMBERED_ENDINGS, None)
        while self.audio and self.audio[0].generation < number:  # nobody reads: keep at most two generations
            self.audio.popleft()
        self.out = self._next_generation(number + 1, 0)
        self.flushing = False

    # ---- what the client wants

    def pump(self) -> None:
        """Send what credit allows."""
        if self.out and not self.flushing and not self.closed:
            for message in self.out.due(self._session.now_ns):
                self._session.send(message)

    def check(self) -> None:
        """Raise what the daemon has complained of since the last call."""
        if complaint := self.complaint:
            self.complaint = complaint if self.closed else None
            raise complaint
        self._session.check()
        if self.closed:
            raise errors.StreamError(f"stream {self.name} is closed", stream=self.name)

    def wait_opened(self) -> Steps["Channel"]:
        while self.opened is None:
            self.check()
            yield
        return self

    @property
    def bins(self) -> int:
        """Mel bins of the stream's voice."""
        voices = self._session.welcome.voices if self._session.welcome else []
        name = self.opened.voice if self.opened else ""
        found = [voice["format"].get("n_mels") for voice in voices if voice.get("name") == name and "format" in voice]
        return found[0] if found and isinstance(found[0], int) else 80

    def tell(self, message: Message) -> None:
        """A message about this stream that needs nothing else: pause, resume, gain."""
        self.check()
        self._session.send(message)

    def send_mel(self, mel: object) -> Steps[None]:
        frames = as_mel(mel, self.bins)
        self.check()
        while self.flushing or (self.out and self.out.end_wanted):  # the generation before must end first
            self.check()
            yield
        out = self.out
        assert out is not None, "an open stream has a generation"
        self._check_length(out, len(frames))
        if len(frames):
            out.backlog.append(frames)
            self.spoken = out.generation
        self.pump()
        while out.backlog and self.out is out and not self.flushing:
            self.check()
            yield
        self.check()
        if self.out is not out or self.flushing:
            raise self._why_ended(out.generation)

    def _check_length(self, out: Outgoing, frames: int) -> None:
        """Refuse what the daemon would never give credit for: waiting would be for ever."""
        most_s = self._limit("max_utterance_s")
        if most_s is None or self.opened is None:
            return
        most_frames = int(most_s * self.opened.rate_hz) // self.opened.hop
        if out.next_frame + sum(map(len, out.backlog)) + frames > most_frames:
            text = f"stream {self.name}: an utterance may have {most_frames} frames ({most_s:g} s), this one has more"
            raise errors.Refused(text, wire.Code.TOO_LONG, self.name)

    def _why_ended(self, generation: int) -> GlowdError:
        ending = self.endings.get(generation)
        if isinstance(ending, GlowdError):
            return ending
        return errors.Interrupted(f"stream {self.name} was flushed while frames waited to be sent")

    def end(self) -> None:
        """No more frames in this generation. Nothing, if it has none or has ended already."""
        self.check()
        if self.out and self.out.started and not self.flushing:
            self.out.end_wanted = True
            self.pump()

    def wait_played(self) -> Steps[Played | Flushed | None]:
        """End the generation, and wait for its ending. The last ending, if none is running; None, if none ever was."""
        self.end()
        if self.out is None or not (self.out.end_wanted or self.flushing):
            last = self.endings.get(self.generation - 1)
            return None if isinstance(last, GlowdError) else last  # an error was raised when it came
        number = self.generation
        while number not in self.endings:
            self.check()
            yield
        return self._unless_failed(self.endings[number])

    def _unless_failed(self, ending: Ending) -> Played | Flushed:
        """Raise a fatal error. What this tells need not be told again at the next call."""
        if self.complaint is ending or isinstance(self.complaint, errors.Interrupted):
            self.complaint = None
        if isinstance(ending, GlowdError):
            raise ending
        return ending

    def flush(self, fade_ms: int) -> Steps[Played | Flushed]:
        """Stop now. Played, if the generation came to its end before the daemon read this."""
        self.check()
        number, out = self.generation, self.out
        if not out or not out.started:
            return Flushed(self.name, number, -1, 0)
        if not self.flushing:
            self._session.send(wire.Flush(self.name, number, fade_ms))
            self.flushing, out.end_wanted = True, False
            out.backlog.clear()
            self.audio.clear()
            self.read = number
        while number not in self.endings:
            self.check()
            yield
        return self._unless_failed(self.endings[number])

    def to_read(self) -> int:
        """The generation that a reader wants: the last that got frames, unless it was read; then the running one."""
        return self.spoken if self.spoken > self.read else self.generation

    def next_audio(self, generation: int) -> Steps[Audio | None]:
        """The generation's next piece of audio; None when it has ended otherwise."""
        while True:
            while self.audio and self.audio[0].generation < generation:
                self.audio.popleft()
            if self.audio and self.audio[0].generation == generation:
                piece = self.audio.popleft()
                self.read = generation if piece.last else self.read
                return piece
            if self.generation > generation:
                break
            self.check()
            yield
        self.read = max(self.read, generation)
        if generation in self.endings:
            self._unless_failed(self.endings[generation])
        return None
