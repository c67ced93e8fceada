"""One stream as its client sees it, without I/O: its generations, their endings, the audio, pending errors.

Rules: as connection.py, which owns the streams and passes them the daemon's messages. What may have to wait is a
generator (`Steps`) that yields what it waits for, in words, whenever it needs a new message from the daemon.
"""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowd.clients import errors
from glowd.clients.errors import GlowdError
from glowd.clients.kept import Kept
from glowd.clients.mel_arrays import FrameReader
from glowd.clients.send_queue import GivenUp, SendQueue
from glowd.clients.steps import ConnectionPorts, Steps
from glowd.daemon import wire
from glowd.daemon.wire import Array, Audio, Flushed, Message, Played

Ending = Played | Flushed | GlowdError

REMEMBERED_ENDINGS = 8
MAY_PASS = {
    wire.Code.STREAM_EXISTS, wire.Code.AT_CAPACITY, wire.Code.TOO_MANY_CLIENTS, wire.Code.SINK_UNAVAILABLE,
    wire.Code.ENGINE_LOST, wire.Code.DEVICE_LOST, wire.Code.STOPPING,
}  # fmt: skip
"""Why a daemon that has just been started may refuse a stream that it accepts soon."""

log = logging.getLogger("glowd.client")


@dataclass(slots=True)
class Lost:
    """A stream whose daemon is lost. `refusal`: of the daemon that is back, which may accept it soon."""

    is_asked: bool = False
    refusal: GlowdError | None = None


class StreamState:
    """One stream. Owner: its connection."""

    def __init__(self, request: wire.Open, connection: ConnectionPorts, can_go_on: bool = False) -> None:
        """`can_go_on`: whether it is kept what another daemon needs to go on."""
        self.name, self._connection, self._reader = request.stream, connection, FrameReader(request.format)
        self.kept, self._can_go_on = Kept(request, can_go_on), can_go_on
        self.lost: Lost | None = None
        """While the daemon is lost."""
        self._fade_ms = 0
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
            case wire.Opened() if queue is None:
                self.opened, self.lost = message, None
                self.queue = self._new_queue(message.generation, message.credit_frames)
            case wire.Opened() if self.lost:
                self._reopened(message)
            case wire.State():
                self.daemon_state = message.state
            case wire.Warning():
                self.warnings.append(message)
                log.warning("stream %s: %s (%d %s)", self.name, message.text, message.code, message.name)
            case wire.Credit() if queue and message.generation == queue.generation:
                queue.grant(message.frames)
            case wire.Position() if queue and message.generation == queue.generation:
                self.kept.hear(message, self._connection.daemon_ahead_ns)
                queue.keep_from(message.first_frame)
            case wire.Audio() if queue and message.generation == queue.generation and not self.flushing:
                if audio := self.kept.fresh(message):
                    self.audio.append(audio)
            case wire.Flushed() | wire.Played() if queue and message.generation == queue.generation:
                if isinstance(message, wire.Flushed) and not self.flushing:
                    self.pending_error = errors.Interrupted(f"stream {self.name} was flushed by another client")
                self._end_generation(message)
        self._send_frames()

    def receive_error(self, error: wire.Error) -> None:
        """Take an error that names this stream."""
        queue, failure = self.queue, errors.from_message(error)
        if self.lost and error.fatal and error.code in MAY_PASS:
            self.lost.refusal, self.lost.is_asked = failure, False
        elif self.lost and error.fatal and queue:
            self.give_up(str(failure))
        elif queue is None or error.code == wire.Code.UNKNOWN_STREAM:
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
        chunk_frames, keeps = int(self._limit("max_chunk_frames") or 512), self._can_go_on and self._daemon_can_go_on
        return SendQueue(self.name, generation, credit_frames, chunk_frames, kept_from=0 if keeps else None)

    def _end_generation(self, ending: Ending) -> None:
        number = self.generation
        self.endings[number] = ending
        self.endings.pop(number - REMEMBERED_ENDINGS, None)
        while self.audio and self.audio[0].generation < number:  # unread audio: keep two generations at most
            self.audio.popleft()
        self.queue = self._new_queue(number + 1, 0)
        self.kept.begin_generation()
        self.flushing = False

    # ---- when the daemon is lost

    def lose(self) -> None:
        """The daemon is lost, and may come back: send nothing until the stream is opened again."""
        self.lost = self.lost or Lost()
        self.lost.is_asked = False

    def open_again(self) -> None:
        """The daemon is back: open the stream, or give it up if this daemon cannot go on with it."""
        assert self.lost, "it is lost"
        self.lost.is_asked, self.lost.refusal = True, None
        if self.queue is None:
            self._connection.send(self.kept.request)
        elif self._may_go_on:
            self._connection.send(self.kept.request_again(self.generation, self._connection.daemon_ahead_ns))
        else:
            self.give_up("the daemon that is there now cannot go on with it: update glowd")

    @property
    def _daemon_can_go_on(self) -> bool:
        welcome = self._connection.welcome
        return welcome is not None and welcome.version >= wire.since(wire.Position)

    @property
    def _may_go_on(self) -> bool:
        if self._daemon_can_go_on and self.kept.position:
            return True
        is_new = not self.kept.audio_has_come and not (self.queue and self.queue.used_frames)
        return is_new and (self._daemon_can_go_on or self.generation == 0)

    def _reopened(self, opened: wire.Opened) -> None:
        """Send again what the listener has not heard."""
        before, queue = self.opened, self.queue
        assert before and queue, "it was open"
        if (opened.voice, opened.rate_hz, opened.hop) != (before.voice, before.rate_hz, before.hop):
            self._connection.send(wire.Close(self.name))
            self.give_up(f"the daemon has another voice now: {opened.voice} at {opened.rate_hz} Hz, hop {opened.hop}")
            return
        self.opened, self.lost = opened, None
        queue.restart(self.kept.first_frame, opened.credit_frames, self.heard_samples // opened.hop)
        if self.flushing:
            self._connection.send(wire.Flush(self.name, queue.generation, self._fade_ms))

    def give_up(self, reason: str) -> None:
        """The stream cannot go on: every call raises DaemonGone, with how far the listener got."""
        text = f"stream {self.name} was lost with the daemon: {reason}"
        self.pending_error, self.closed, self.lost = self._gone(text), True, None
        self._connection.forget(self)

    def _gone(self, reason: str) -> errors.DaemonGone:
        how_far = self._how_far()
        return errors.DaemonGone(f"{reason}{how_far}", heard_samples=self.heard_samples if how_far else None)

    @property
    def heard_samples(self) -> int:
        """Samples of the running generation that the listener has heard at least."""
        if self.kept.position:
            return self.kept.position.samples
        if not self.queue or not self.opened or self._voice.get("whole_utterance"):
            return 0  # the credit of a voice that needs the whole utterance says nothing of the sound
        return self.queue.used_frames * self.opened.hop

    # ---- what the client wants

    def _send_frames(self) -> None:
        """Send what credit allows."""
        if self.queue and not self.flushing and not self.closed and not self.lost:
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
            raise self._gone(str(gone)) from None
        if self.closed:
            raise errors.StreamError(f"stream {self.name} is closed; open a new one", stream=self.name)

    def _how_far(self) -> str:
        """How far the listener got in the running utterance, for an error that ends it."""
        if not self.queue or not self.queue.started or not self.opened:
            return ""
        heard = self.heard_samples
        return (
            f"; of utterance {self.generation} of stream {self.name}, at least {heard // self.opened.hop} of "
            f"{self.queue.total_frames} frames ({heard / self.opened.rate_hz:.2f} s) had been delivered, {heard} samples: "
            "open a new stream to speak the rest"
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

    def _frames(self, mel: object) -> Array:
        return self._reader.frames(mel, self._voice.get("format", {}), self.queue.total_frames if self.queue else 0)

    def control(self, message: Message) -> None:
        """Send a message that has no answer: pause, resume, gain."""
        self.check()
        self.kept.note(message)
        if not self.lost:
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
            if not self.lost:
                self._connection.send(wire.Flush(self.name, number, fade_ms))
            self.flushing, self._fade_ms, queue.end_wanted = True, fade_ms, False
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
