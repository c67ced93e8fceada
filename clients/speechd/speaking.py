"""Messages spoken by the daemon, one at a time, and stopped at once.

Rules: knows no protocol of speech-dispatcher. A message is a stream of its own and a thread of its own, so nothing of it can
be heard after it was stopped, even while its next sentence is still being made. Its ending is said once.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from glowd.clients import errors
from glowd.clients.client import Client, Stream
from glowd.clients.speechd.settings import ModuleSettings
from glowd.clients.upstream import Manner, Upstream, UpstreamError, numbered, pieces_of_text, speak_text
from glowd.clients.voices import max_frames, not_ready, ready_format, voice_state
from glowd.daemon.wire import Code
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.flow.mel import Floats, MelFormat

FADE_MS = 5
DEVICE_WAIT_S, DEVICE_POLL_S = 5.0, 0.05
VOICE_WAIT_S, VOICE_POLL_S = 10.0, 0.1

log = logging.getLogger("glowd")


class Stopped(Exception):
    """The message was stopped: what is left of its stream is to be flushed."""


FAULTS = (errors.GlowdError, UpstreamError, OSError, Stopped)


class Message:
    """A text that is being spoken. `on_begin` is called when it begins, `on_end` once, with "end", "stop" or "pause"."""

    def __init__(self, on_begin: Callable[[], object], on_end: Callable[[str], object]) -> None:
        self._on_begin, self._on_end = on_begin, on_end
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._ended = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, or has ended."""
        return self._ended.is_set()

    def check(self) -> None:
        """Raises Stopped if the message is over."""
        if self.is_over:
            raise Stopped("the message was stopped")

    def begin(self, stream: Stream) -> None:
        """The stream is open. Raises Stopped if the message is over."""
        with self._lock:
            self.check()
            self._stream = stream
            self._on_begin()

    def stop(self, how: str) -> None:
        """Silence it; "stop" or "pause". Returns when the daemon plays nothing more of it."""
        with self._lock:
            if self.is_over:
                return
            self._ended.set()
            stream = self._stream
        if stream is not None:
            with contextlib.suppress(errors.GlowdError):
                stream.flush(FADE_MS)
        self._on_end(how)

    def end(self) -> None:
        """It was spoken to its end, or cannot be."""
        with self._lock:
            if self.is_over:
                return
            self._ended.set()
        self._on_end("end")


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
        self, text: str, language: str, manner: Manner, gain_db: float,
        on_begin: Callable[[], object], on_end: Callable[[str], object],
    ) -> None:  # fmt: skip
        """Begin to speak; returns at once."""
        self.stop("stop")
        self._now = message = Message(on_begin, on_end)
        arguments = (message, text, language, manner, gain_db)
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

    def _run(self, message: Message, text: str, language: str, manner: Manner, gain_db: float) -> None:
        """The message's thread."""
        try:
            self._speak(message, text, language, manner, gain_db)
        except FAULTS as error:
            if not message.is_over:  # a stream that was flushed says so too
                log.error("cannot speak: %s", error)
        except Exception:  # the edge of the thread: speech-dispatcher waits for the end of the message
            log.exception("a message failed")
        finally:
            message.end()

    def _speak(self, message: Message, text: str, language: str, manner: Manner, gain_db: float) -> None:
        assert self._client is not None, "connect was called"
        spoken = speak_text(self._upstream_of(language), pieces_of_text(text), self._wanted, manner)
        with contextlib.closing(spoken.parts), self._open(message, spoken.stated, gain_db) as stream:
            message.begin(stream)
            send(message, stream, numbered(spoken.parts, max_frames(self._client.welcome, self._wanted)))

    def _open(self, message: Message, stated: dict[str, Any], gain_db: float) -> Stream:
        """A stream for the message; waits a little for a sound device that is away. Raises GlowdError or Stopped."""
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
                if error.code != Code.SINK_UNAVAILABLE or waiting.seconds > DEVICE_WAIT_S:
                    raise
            pause.wait(DEVICE_POLL_S)


def send(message: Message, stream: Stream, parts: Iterable[tuple[int, Floats]]) -> None:
    """Send frames, each with the number of its utterance, and wait until all are played. Raises Stopped."""
    utterance = 0
    for number, frames in parts:
        message.check()
        if number != utterance:
            stream.end()
            utterance = number
        stream.send(frames)
    message.check()
    stream.wait_played()


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
