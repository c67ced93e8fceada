"""One stream as its client sees it, without I/O: its generations, their endings, the audio, pending errors.

Rules: as connection.py, which owns the streams and passes them the daemon's messages. What may have to wait is a
generator (`Steps`) that yields what it waits for, in words, whenever it needs a new message from the daemon.
"""

import logging
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.mel_arrays import as_array, as_frames, check_values, is_turned
from glowd.clients.send_queue import SendQueue
from glowd.daemon import wire
from glowd.daemon.wire import STATED_HIGH, STATED_LOW, Array, Audio, Flushed, Message, Played
from glowd.flow.mel_formats.statement import read_statement, voice_mels

T = TypeVar("T")
Steps = Generator[str, None, T]
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


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A `send` that was given up after some of its frames were sent: `frames` [n, bins], the first at `first_frame`."""

    generation: int
    first_frame: int
    frames: Array
    taken: int

    def is_retried_by(self, frames: Array, queue: SendQueue) -> bool:
        """Whether these frames are the same, and nothing was sent in between."""
        follows = (queue.generation, queue.total_frames) == (self.generation, self.first_frame + self.taken)
        return follows and not queue.end_wanted and np.array_equal(frames, self.frames)


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
        self._given_up: GivenUp | None = None

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
        try:
            self._connection.check()
        except errors.DaemonGone as gone:
            raise errors.DaemonGone(f"{gone}{self._how_far()}") from None
        if self.closed:
            raise errors.StreamError(f"stream {self.name} is closed; open a new one", stream=self.name)

    def _how_far(self) -> str:
        """How far the listener got in the running utterance, for an error that ends it."""
        if not self.queue or not self.queue.started or not self.opened:
            return ""
        used = (
            0 if self._voice.get("whole_utterance") else self.queue.used_frames
        )  # its credit says nothing of the sound
        heard_s = used * self.opened.hop / self.opened.rate_hz
        return (
            f"; of utterance {self.generation} of stream {self.name}, at least {used} of {self.queue.total_frames} frames "
            f"({heard_s:.2f} s) had been delivered: open a new stream to speak the rest"
        )

    def wait_opened(self) -> Steps["StreamState"]:
        """Wait for `opened`. Raises what the daemon answers instead."""
        while self.opened is None:
            self.check()
            yield f"`opened` of stream {self.name}"
        return self

    @property
    def _voice(self) -> Mapping[str, Any]:
        """The stream's voice as `welcome` describes it."""
        voices = self._connection.welcome.voices if self._connection.welcome else []
        name = self.opened.voice if self.opened else ""
        return next((voice for voice in voices if voice.get("name") == name), {})

    @cached_property
    def bins(self) -> int:
        """Mel bins of the frames that the client sends: those of the stated format, else the voice's."""
        voice: Mapping[str, Any] = self._voice.get("format", {})
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

        A call that is given up takes back the frames that have not been sent; the same frames may then be sent again.
        Raises ValueError as `as_frames` and `check_values` do, Refused if the utterance becomes too long, Interrupted if it
        was flushed.
        """
        frames = self._frames(mel)
        self.check()
        queue = yield from self._wait_turn()
        last = self._given_up
        taken = last.taken if last and last.is_retried_by(frames, queue) else 0
        self._check_length(queue, len(frames) - taken)
        self._given_up = None
        if len(frames) > taken:
            first_frame = queue.total_frames - taken
            queue.backlog.append(frames[taken:])
            self.last_sent = queue.generation
            yield from self._wait_sent(queue, first_frame, frames)
        self.check()
        if self.queue is not queue or self.flushing:
            raise self._why_ended(queue.generation)

    def _wait_turn(self) -> Steps[SendQueue]:
        """Wait until the generation before has ended, and another call of `send` has sent its frames."""
        while self.flushing or not self.queue or self.queue.end_wanted or self.queue.backlog:
            self.check()
            ending = self.flushing or not self.queue or self.queue.end_wanted
            yield f"the ending of utterance {self.generation} of stream {self.name}" if ending else self._for_credit()
        return self.queue

    def _wait_sent(self, queue: SendQueue, first_frame: int, frames: Array) -> Steps[None]:
        self._send_frames()
        try:
            while queue.backlog and self.queue is queue and not self.flushing:
                self.check()
                yield self._for_credit()
        except errors.WaitTimeout as late:
            taken = late.frames_taken = self._give_up(queue, first_frame, frames)
            late.args = (f"{late}; {taken} of the {len(frames)} frames were taken",)
            raise
        except GeneratorExit:  # the caller was cancelled
            self._give_up(queue, first_frame, frames)
            raise

    def _for_credit(self) -> str:
        paused = ", which is paused" if self.daemon_state == "paused" else ""
        return f"credit for frames of stream {self.name}{paused}"

    def _give_up(self, queue: SendQueue, first_frame: int, frames: Array) -> int:
        """Take back what was not sent; the number of frames that were."""
        taken = queue.withdraw(first_frame)
        self._given_up = GivenUp(queue.generation, first_frame, frames, taken)
        return taken

    def _check_length(self, queue: SendQueue, frames: int) -> None:
        """Raise Refused for frames that the daemon would never give credit for: the wait would have no end."""
        most_s = self._limit("max_utterance_s")
        if most_s is None or self.opened is None:
            return
        most_frames = int(most_s * self.opened.rate_hz) // self.opened.hop
        if (total := queue.total_frames + frames) > most_frames:
            text = (
                f"stream {self.name}: this utterance would have {total} frames; at most {most_frames} frames "
                f"({most_s:g} s) are allowed (server.max_utterance_s): end it and start the next one"
            )
            raise errors.Refused(text, wire.Code.TOO_LONG, self.name)

    def _why_ended(self, generation: int) -> GlowdError:
        ending = self.endings.get(generation)
        if isinstance(ending, GlowdError):
            return ending
        return errors.Interrupted(f"stream {self.name} was flushed while frames waited to be sent")

    def end(self) -> None:
        """End the generation: no more frames. One without frames is an empty utterance. Does nothing if it has ended."""
        self.check()
        if self.queue and not self.flushing and not self.queue.end_wanted:
            self.queue.end_wanted = True
            self.last_sent = self.generation
            self._send_frames()

    def wait_played(self) -> Steps[Played | Flushed | None]:
        """End the generation and wait for its ending. If it has no frames: the last ending, if there was one.

        None if that was an error, which was raised when it came.
        """
        self.check()
        running = self.flushing or self.queue is None or self.queue.started
        if not running and (last := self.endings.get(self.generation - 1)):
            return None if isinstance(last, GlowdError) else last
        self.end()
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
            yield f"the ending of utterance {generation} of stream {self.name}"
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
            yield f"audio of utterance {generation} of stream {self.name}"
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
    def frames_taken(self) -> int:
        """Frames that belong to the running utterance: those of every `send` that returned, or was given up half way."""
        return self._state.queue.total_frames if self._state.queue else 0

    @property
    def warnings(self) -> list[wire.Warning]:
        """What the daemon has warned of, in order; each was logged too when it arrived (logger glowd.client)."""
        return list(self._state.warnings)

    @property
    def state(self) -> str:
        """The stream's state as the daemon last sent it: "playing", "starved", ..."""
        return self._state.daemon_state
