"""One stream as its client sees it, without I/O: its generations, their endings, the audio, pending errors.

Rules: as connection.py, which owns the streams and passes them the daemon's messages. What may have to wait is a
generator (`Steps`) that yields whenever it needs a new message from the daemon.
"""

import logging
from collections import deque
from collections.abc import Generator, Mapping
from functools import cached_property
from typing import Any, Protocol, TypeVar

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.mel_arrays import as_array, as_frames, check_values, is_turned
from glowd.clients.send_queue import SendQueue
from glowd.daemon import wire
from glowd.daemon.wire import STATED_HIGH, STATED_LOW, Array, Audio, Flushed, Message, Played
from glowd.flow.mel_formats.statement import read_statement, voice_mels

T = TypeVar("T")
Steps = Generator[None, None, T]
Ending = Played | Flushed | GlowdError

REMEMBERED_ENDINGS = 8
SCALE_KEYS = {"preset", "log", "log_floor", "scale", "offset"}
"""Keys of a stated format with which values need not be natural logs."""

log = logging.getLogger("glowd.client")


class ConnectionPorts(Protocol):
    """What a stream needs of its connection."""

    welcome: wire.Welcome | None

    def send(self, message: Message) -> None: ...
    def now_ns(self) -> int: ...
    def check(self) -> None: ...


class StreamState:
    """One stream. Owner: its connection."""

    def __init__(self, name: str, connection: ConnectionPorts, stated: Mapping[str, Any]) -> None:
        """`stated`: the format in `open`."""
        self.name, self._connection, self._stated = name, connection, stated
        self._bins_first = False
        self.warnings: list[wire.Warning] = []
        self.opened: wire.Opened | None = None
        self.queue: SendQueue | None = None
        self.flushing = self.closed = False
        self.last_sent = -1  # the last generation that got frames
        self.last_read = -1  # the last generation whose audio was read to its end, or flushed
        self.daemon_state = "opening"
        self.audio: deque[Audio] = deque()
        self.endings: dict[int, Ending] = {}
        self.pending_error: GlowdError | None = None

    @property
    def generation(self) -> int:
        """Number of the generation that the next frames belong to."""
        return self.queue.generation if self.queue else 0

    # ---- what the daemon says

    def receive(self, message: Message) -> None:
        """Take any message about this stream but errors."""
        queue = self.queue
        match message:
            case wire.Opened():
                self.opened = message
                self.queue = self._new_queue(message.generation, message.credit_frames)
            case wire.State():
                self.daemon_state = message.state
            case wire.Warning():
                self.warnings.append(message)
                log.warning("stream %s: %s (%d %s)", self.name, message.text, message.code, message.name)
            case wire.Credit() if queue and message.generation == queue.generation:
                queue.grant(message.frames)
            case wire.Audio() if queue and message.generation == queue.generation and not self.flushing:
                self.audio.append(message)
            case wire.Flushed() | wire.Played() if queue and message.generation == queue.generation:
                if isinstance(message, wire.Flushed) and not self.flushing:
                    self.pending_error = errors.Interrupted(f"stream {self.name} was flushed by another client")
                self._end_generation(message)
        self._send_frames()

    def receive_error(self, error: wire.Error) -> None:
        """Take an error that names this stream."""
        queue, failure = self.queue, errors.from_message(error)
        if queue is None or error.code == wire.Code.UNKNOWN_STREAM:
            self.pending_error, self.closed = failure, True
        elif error.fatal:
            self._end_generation(failure)
            self.pending_error = failure
        elif error.code == wire.Code.WRONG_GENERATION or error.generation < queue.generation:
            log.debug("ignored, it answers a message that was sent before the last ending was known: %s", failure)
        elif queue.is_follow_on(error):
            log.debug("ignored, it answers a message that was sent behind a rejected mel: %s", failure)
        elif error.expected_frame >= 0 and queue.resume_after(error):
            log.info("sending again from frame %d: %s", error.expected_frame, failure)
            self._send_frames()
        else:
            self.pending_error, self.flushing = failure, False

    def _limit(self, name: str) -> float | None:
        value = self._connection.welcome.limits.get(name) if self._connection.welcome else None
        return value if isinstance(value, int | float) and value > 0 else None

    def _new_queue(self, generation: int, credit_frames: int) -> SendQueue:
        return SendQueue(self.name, generation, credit_frames, int(self._limit("max_chunk_frames") or 512))

    def _end_generation(self, ending: Ending) -> None:
        number = self.generation
        self.endings[number] = ending
        self.endings.pop(number - REMEMBERED_ENDINGS, None)
        while self.audio and self.audio[0].generation < number:  # unread audio: keep two generations at most
            self.audio.popleft()
        self.queue = self._new_queue(number + 1, 0)
        self.flushing = False

    # ---- what the client wants

    def _send_frames(self) -> None:
        """Send what credit allows."""
        if self.queue and not self.flushing and not self.closed:
            for message in self.queue.sendable(self._connection.now_ns):
                self._connection.send(message)

    def check(self) -> None:
        """Raise the error that came since the last call, or what has ended the stream or the connection."""
        if error := self.pending_error:
            self.pending_error = error if self.closed else None
            raise error
        self._connection.check()
        if self.closed:
            raise errors.StreamError(f"stream {self.name} is closed; open a new one", stream=self.name)

    def wait_opened(self) -> Steps["StreamState"]:
        """Wait for `opened`. Raises what the daemon answers instead."""
        while self.opened is None:
            self.check()
            yield
        return self

    @cached_property
    def bins(self) -> int:
        """Mel bins of the frames that the client sends: those of the stated format, else the voice's."""
        voices = self._connection.welcome.voices if self._connection.welcome else []
        name = self.opened.voice if self.opened else ""
        voice: Mapping[str, Any] = next((voice.get("format", {}) for voice in voices if voice.get("name") == name), {})
        try:
            return read_statement(self._stated, voice_mels(voice)).mels.n_mels
        except ValueError:  # a newer daemon, which knows more formats
            return int(voice.get("n_mels", 80))

    def _frames(self, mel: object) -> Array:
        """Frames [n, bins] of whatever holds them. A square mel has the order of the stream's last one that had one."""
        values, bins = as_array(mel), self.bins
        frames = as_frames(values, bins, bins_first=self._bins_first)
        if values.ndim >= 2 and values.shape[-1] != values.shape[-2]:
            self._bins_first = is_turned(values.shape, bins, False)
        limits = (STATED_LOW, STATED_HIGH) if self._stated.keys() & SCALE_KEYS else (wire.MEL_LOW, wire.MEL_HIGH)
        check_values(frames, *limits, first_frame=self.queue.total_frames if self.queue else 0)
        return frames

    def control(self, message: Message) -> None:
        """Send a message that has no answer: pause, resume, gain."""
        self.check()
        self._connection.send(message)

    def send_mel(self, mel: object) -> Steps[None]:
        """Send frames as credit allows; `mel` is anything that `as_frames` takes.

        Raises ValueError as `as_frames` and `check_values` do, Refused if the utterance becomes too long, Interrupted if it
        was flushed.
        """
        frames = self._frames(mel)
        self.check()
        while self.flushing or (self.queue and self.queue.end_wanted):  # the generation before must end first
            self.check()
            yield
        queue = self.queue
        assert queue is not None, "an open stream has a generation"
        self._check_length(queue, len(frames))
        if len(frames):
            queue.backlog.append(frames)
            self.last_sent = queue.generation
        self._send_frames()
        while queue.backlog and self.queue is queue and not self.flushing:
            self.check()
            yield
        self.check()
        if self.queue is not queue or self.flushing:
            raise self._why_ended(queue.generation)

    def _check_length(self, queue: SendQueue, frames: int) -> None:
        """Raise Refused for frames that the daemon would never give credit for: the wait would have no end."""
        most_s = self._limit("max_utterance_s")
        if most_s is None or self.opened is None:
            return
        most_frames = int(most_s * self.opened.rate_hz) // self.opened.hop
        if (total := queue.total_frames + frames) > most_frames:
            text = (
                f"stream {self.name}: this utterance would have {total} frames; at most {most_frames} frames "
                f"({most_s:g} s) are allowed: end it and start the next one"
            )
            raise errors.Refused(text, wire.Code.TOO_LONG, self.name)

    def _why_ended(self, generation: int) -> GlowdError:
        ending = self.endings.get(generation)
        if isinstance(ending, GlowdError):
            return ending
        return errors.Interrupted(f"stream {self.name} was flushed while frames waited to be sent")

    def end(self) -> None:
        """End the generation: no more frames. Does nothing if it has none, or has ended already."""
        self.check()
        if self.queue and self.queue.started and not self.flushing:
            self.queue.end_wanted = True
            self._send_frames()

    def wait_played(self) -> Steps[Played | Flushed | None]:
        """End the generation and wait for its ending. The last ending if none is running; None if there never was one."""
        self.end()
        if self.queue is None or not (self.queue.end_wanted or self.flushing):
            last = self.endings.get(self.generation - 1)
            return None if isinstance(last, GlowdError) else last  # an error was raised when it came
        return (yield from self._wait_ended(self.generation))

    def flush(self, fade_ms: int) -> Steps[Played | Flushed]:
        """Stop now. Played if the generation ended before the daemon read the flush."""
        self.check()
        number, queue = self.generation, self.queue
        if not queue or not queue.started:
            return Flushed(self.name, number, -1, 0)
        if not self.flushing:
            self._connection.send(wire.Flush(self.name, number, fade_ms))
            self.flushing, queue.end_wanted = True, False
            queue.backlog.clear()
            self.audio.clear()
            self.last_read = number
        return (yield from self._wait_ended(number))

    def _wait_ended(self, generation: int) -> Steps[Played | Flushed]:
        while generation not in self.endings:
            self.check()
            yield
        return self._unless_failed(self.endings[generation])

    def _unless_failed(self, ending: Ending) -> Played | Flushed:
        """The ending; raises it if it is an error. What this call reports is not raised again by the next one."""
        if self.pending_error is ending or isinstance(self.pending_error, errors.Interrupted):
            self.pending_error = None
        if isinstance(ending, GlowdError):
            raise ending
        return ending

    def generation_to_read(self) -> int:
        """The generation that a reader wants: the last one that got frames; if that was read, the running one."""
        return self.last_sent if self.last_sent > self.last_read else self.generation

    def next_audio(self, generation: int) -> Steps[Audio | None]:
        """The generation's next chunk of audio; None if it ended without a last chunk."""
        while True:
            while self.audio and self.audio[0].generation < generation:
                self.audio.popleft()
            if self.audio and self.audio[0].generation == generation:
                chunk = self.audio.popleft()
                self.last_read = generation if chunk.last else self.last_read
                return chunk
            if self.generation > generation:
                break
            self.check()
            yield
        self.last_read = max(self.last_read, generation)
        if generation in self.endings:
            self._unless_failed(self.endings[generation])
        return None


class StreamView:
    """What the streams of both clients show of their state; base class of client.Stream and aio.AsyncStream."""

    def __init__(self, state: StreamState) -> None:
        assert state.opened is not None, "the client waits for it"
        self._state = state
        self.name, self.voice = state.name, state.opened.voice
        self.rate_hz, self.hop = state.opened.rate_hz, state.opened.hop
        self.audio_rate_hz = state.opened.audio_rate_hz or self.rate_hz
        """Samples in a second of the audio that this client receives."""
        self.audio_latency_ms = state.opened.audio_latency_ms
        """How much later that audio comes because it is resampled."""

    @property
    def generation(self) -> int:
        """Number of the utterance that the next frames belong to."""
        return self._state.generation

    @property
    def credit_frames(self) -> int:
        """Frames that can be sent without waiting."""
        return self._state.queue.credit if self._state.queue else 0

    @property
    def warnings(self) -> list[wire.Warning]:
        """What the daemon has warned of, in order; each was logged too when it arrived (logger glowd.client)."""
        return list(self._state.warnings)

    @property
    def state(self) -> str:
        """The stream's state as the daemon last sent it: "playing", "starved", ..."""
        return self._state.daemon_state
