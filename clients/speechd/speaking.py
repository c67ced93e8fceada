"""Messages spoken by the daemon, one at a time, and stopped at once.

Rules: knows no protocol of speech-dispatcher. A message is a stream of its own and a thread of its own, so nothing of it can
be heard after it was stopped, even while its next sentence is still being made. Its ending is said once, and its stream is
flushed once: by whoever ends it first, the thread that stops it or its own.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glowd.clients import errors
from glowd.clients.client import Client, Stream
from glowd.clients.speechd.marks import Marks
from glowd.clients.speechd.settings import ModuleSettings
from glowd.clients.upstream import Manner, Upstream, UpstreamError, numbered, speak_text
from glowd.clients.upstream.ssml import Piece
from glowd.clients.voices import max_frames, not_ready, ready_format, voice_state
from glowd.daemon.wire import Code
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.flow.mel import Floats, MelFormat

FADE_MS = 5
MARK_EVERY_S = 0.03
OPEN_WAIT_S, OPEN_POLL_S = 10.0, 0.05
PASSES = (Code.SINK_UNAVAILABLE, Code.AT_CAPACITY)
"""Refusals that pass by themselves: a sound device that is away, a machine that is overloaded."""
VOICE_WAIT_S, VOICE_POLL_S = 10.0, 0.1

log = logging.getLogger("glowd")


class Stopped(Exception):
    """The message was stopped: what is left of its stream is to be flushed."""


FAULTS = (errors.GlowdError, UpstreamError, OSError, Stopped)


@dataclass(frozen=True, slots=True)
class Events:
    """Called when a message begins; when it was heard up to a mark; once when it ends, with "end", "stop" or "pause"."""

    begin: Callable[[], object]
    mark: Callable[[str], object]
    end: Callable[[str], object]


class Message:
    """Texts that are being spoken."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._stream: Stream | None = None
        self._is_flushed = False
        self._ended = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or has ended."""
        return self._ended.is_set()

    def check(self) -> None:
        """Raises Stopped if the message is over."""
        if self.is_over:
            raise Stopped("the message was stopped")

    @contextlib.contextmanager
    def speaking(self, stream: Stream) -> Iterator[None]:
        """From the opening of the stream to its close: what goes wrong in between silences it. Raises Stopped if it is over."""
        try:
            with self._lock:
                self.check()
                self._stream = stream
                self._events.begin()
            yield
        except BaseException:
            self._silence()
            raise
        finally:
            stream.close()

    def stop(self, how: str) -> None:
        """Silence it; "stop" or "pause". Returns when the daemon plays nothing more of it."""
        with self._lock:
            if self.is_over:
                return
            self._ended.set()
        self._silence()
        self._events.end(how)

    def _silence(self) -> None:
        """Flush what plays, unless that was done; returns when nothing is heard any more, whoever flushes it."""
        with self._flushing:
            if self._stream is not None and not self._is_flushed:
                self._is_flushed = True
                with contextlib.suppress(errors.GlowdError):
                    self._stream.flush(FADE_MS)

    def reached(self, marks: Iterable[str]) -> None:
        """It was heard up to these marks. Raises Stopped if the message is over."""
        with self._lock:
            self.check()
            for name in marks:
                self._events.mark(name)

    def end(self) -> None:
        """It was spoken to its end, or cannot be."""
        with self._lock:
            if self.is_over:
                return
            self._ended.set()
        self._events.end("end")


class Speaker:
    """Speaks messages. Owner: the thread that reads commands."""

    def __init__(self, settings: ModuleSettings, upstream_of: Callable[[str], Upstream]) -> None:
        """`upstream_of`: the upstream for a language, "" for none in particular. Raises nothing: see `connect`."""
        self._settings, self._upstream_of = settings, upstream_of
        self._client: Client | None = None
        self._wanted = MelFormat()
        self._now: Message | None = None

    def connect(self) -> None:
        """Connect to the daemon, or see that it is still there; waits a little while it loads the voice.

        Raises GlowdError.
        """
        if self._client is not None:
            try:
                self._client.ping()
                return
            except errors.GlowdError:
                self._client.close()
                self._client = None
        client = Client(self._settings.endpoint, name="speech-dispatcher")
        try:
            self._wanted = wait_for_voice(client, self._settings.voice)
        except errors.GlowdError:
            client.close()
            raise
        self._client = client

    def speak(
        self, pieces: Sequence[Piece], language: str, manner: Manner, gain_db: float, events: Events
    ) -> None:  # fmt: skip
        """Begin to speak; returns at once."""
        self.stop("stop")
        self._now = message = Message(events)
        arguments = (message, pieces, language, manner, gain_db)
        threading.Thread(target=self._run, args=arguments, name="message", daemon=True).start()

    def stop(self, how: str) -> None:
        """Stop the message that is spoken, if there is one: "stop" or "pause"."""
        if self._now is not None:
            self._now.stop(how)

    def close(self) -> None:
        """Stop, and leave the daemon."""
        self.stop("stop")
        if self._client is not None:
            self._client.close()

    def _run(self, message: Message, pieces: Sequence[Piece], language: str, manner: Manner, gain_db: float) -> None:
        """The message's thread."""
        try:
            self._speak(message, pieces, language, manner, gain_db)
        except FAULTS as error:
            if not message.is_over:  # a stream that was flushed says so too
                log.error("cannot speak: %s", error)
        except Exception:  # the edge of the thread: speech-dispatcher waits for the end of the message
            log.exception("a message failed")
        finally:
            message.end()

    def _speak(
        self, message: Message, pieces: Sequence[Piece], language: str, manner: Manner, gain_db: float
    ) -> None:  # fmt: skip
        assert self._client is not None, "connect was called"
        marks, most = Marks(pieces), max_frames(self._client.welcome, self._wanted)
        spoken = speak_text(self._upstream_of(language), marks.texts, self._wanted, manner)
        with contextlib.closing(spoken.parts):
            stream = self._open(message, spoken.stated, gain_db)
            with message.speaking(stream):
                send(message, stream, marks, numbered(marks.noted(spoken.parts), most))

    def _open(self, message: Message, stated: dict[str, Any], gain_db: float) -> Stream:
        """A stream for the message; waits a little where a refusal passes by itself. Raises GlowdError or Stopped."""
        assert self._client is not None, "connect was called"
        settings, waiting, pause = self._settings, Silence(AwakeClock()), threading.Event()
        while True:
            message.check()
            try:
                return self._client.open(
                    voice=settings.voice, sinks=settings.sinks, seed=settings.seed, gain_db=gain_db,
                    prefill_ms=settings.prefill_ms, format=stated, catch_up="never",
                )  # fmt: skip
            except errors.Refused as error:
                if error.code not in PASSES or waiting.seconds > OPEN_WAIT_S:
                    raise
            pause.wait(OPEN_POLL_S)


def send(message: Message, stream: Stream, marks: Marks, parts: Iterable[tuple[int, Floats]]) -> None:
    """Send frames, each with the number of its utterance, and wait until all are heard. Raises Stopped."""
    begun, sent_frames = [0], 0  # for each utterance, the frames before it
    for number, frames in parts:
        message.check()
        if number >= len(begun):
            stream.end()
            begun.append(sent_frames)
        stream.send(frames)
        sent_frames += len(frames)
        message.reached(marks.heard(heard_frames(stream, begun)))
    message.check()
    while marks.is_waited_for and not is_played(stream):
        message.reached(marks.heard(heard_frames(stream, begun)))
    stream.wait_played()
    message.reached(marks.heard(sent_frames))


def heard_frames(stream: Stream, begun: Sequence[int]) -> int:
    """Frames from the beginning of the message that the listener has heard."""
    number = stream.generation
    return (begun[number] if number < len(begun) else 0) + stream.heard_samples // stream.hop


def is_played(stream: Stream) -> bool:
    """Wait a little for the end of the utterance."""
    try:
        stream.wait_played(MARK_EVERY_S)
    except errors.WaitTimeout:
        return False
    return True


def wait_for_voice(client: Client, voice: str) -> MelFormat:
    """The mel format of the voice; waits a little while the daemon loads it. Raises GlowdError."""
    waiting, pause = Silence(AwakeClock()), threading.Event()
    while (found := ready_format(client.welcome, voice)) is None:
        name, state = voice_state(client.status(), voice)
        if state is None or waiting.seconds > VOICE_WAIT_S:
            raise not_ready(client.welcome, name, state)
        pause.wait(VOICE_POLL_S)
        client.refresh()
    return found
