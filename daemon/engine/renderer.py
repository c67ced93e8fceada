"""The streams of one voice, rendered: ipc messages in, calls to the network, samples and reports out.

Rules: no socket, no thread; messages go out through `send`, time is passed in. scheduler.py decides who is due, overload.py
what to do when the engine falls behind. Nothing here knows a client, a session or a sound device.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.engine.overload import Overload
from glowd.daemon.engine.scheduler import Batch, Scheduler
from glowd.daemon.engine.stream import Arrival, EngineStream
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.wire.fields import Message
from glowd.flow.mel import Floats
from glowd.flow.timing import frames_per_call
from glowd.flow.vocoder import AnyVocoder, Origin

LOAD_EVERY_NS = 1_000_000_000
DIVERGED = 4.0
"""Times full scale. The mixer limits speech that is a little too loud; a block louder than this is no speech."""

MAX_FAILED_CALLS = 3
"""Calls to the network that fail in a row, before the engine gives up: a GPU that has failed once often fails for ever."""

log = logging.getLogger("glowd.engine")


class NetworkFailsError(Exception):
    """No call to the network succeeds any more. Whoever runs the engine starts it again, and its streams go on."""


@dataclass(slots=True)
class Work:
    """What the renderer has done since `since_ns`. `cpu_ns` is the processor time of `busy_ns`, if it is measured."""

    since_ns: int
    busy_ns: int = 0
    cpu_ns: int = 0
    batches: int = 0
    samples: int = 0


class Renderer:
    """Streams of one vocoder, fed by ipc messages. Owner of every EngineStream; single-threaded."""

    def __init__(
        self,
        vocoder: AnyVocoder,
        scheduler: Scheduler,
        send: Callable[[Message], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns: Callable[[], int] | None = None,
    ) -> None:
        """`cpu_ns`: a clock of processor time, for a voice whose calls should take nothing else."""
        self.vocoder, self.scheduler, self._send = vocoder, scheduler, send
        self._clock_ns, self._cpu_ns = clock_ns, cpu_ns
        self.streams: dict[int, EngineStream] = {}
        self.overload = None if vocoder.whole_utterance else self._overload()
        self._work, self._report_now, self._failed_calls = Work(clock_ns()), False, 0

    def _overload(self) -> Overload:
        # A voice with a fixed chunk has no larger one: its first level already refuses new streams.
        chunk_frames = self.scheduler.chunk_frames
        largest = frames_per_call(self.vocoder, self.scheduler.max_chunk_frames)
        return Overload(chunk_frames, max(chunk_frames, largest), self._clock_ns())

    # ------------------------------------------------------------ messages in

    def handle(self, message: Message) -> None:
        """Apply one message. A stream that cannot continue is reported as Failed; the others are not affected."""
        try:
            match message:
                case ipc.Start():
                    self._drop(message.key)
                    sigma = None if message.sigma < 0 else message.sigma
                    phase = None if message.phase < 0 else message.phase
                    origin = Origin(message.first_frame, message.lead_frames, phase)
                    stream = self.vocoder.open(message.seed, origin, sigma)
                    self.streams[message.key] = EngineStream(message.key, stream, message.attempt)
                case ipc.Frames() if found := self.streams.get(message.key):
                    self._push(found, message)
                case ipc.Finish() if found := self.streams.get(message.key):
                    found.inner.end()
                    found.ended_ns, found.ended_gateway_ns = self._clock_ns(), message.t_gateway_ns
                case ipc.Drop():
                    self._drop(message.key)
                case ipc.DropAll():
                    for key in list(self.streams):
                        self._drop(key)
        except Exception as error:  # the edge between streams
            self._fail(getattr(message, "key", 0), error, getattr(message, "attempt", -1))

    def _push(self, stream: EngineStream, message: ipc.Frames) -> None:
        if message.first_frame != stream.inner.frames_in:
            raise ValueError(f"frames begin at {message.first_frame}; expected {stream.inner.frames_in}")
        stream.inner.push(message.mel)
        now_ns = self._clock_ns()
        stream.arrivals.append(Arrival(stream.inner.frames_in, message.t_client_ns, message.t_gateway_ns, now_ns))

    def _drop(self, key: int) -> None:
        if found := self.streams.pop(key, None):
            self.vocoder.close(found.inner)

    def _fail(self, key: int, error: Exception, attempt: int = -1) -> None:
        log.error("stream %d failed: %s", key, error, exc_info=error)
        if found := self.streams.get(key):
            attempt = found.attempt
        self._drop(key)
        self._send(ipc.Failed(key=key, text=f"{type(error).__name__}: {error}"[:500], attempt=attempt))

    # --------------------------------------------------------------- network

    def step(self) -> bool:
        """Make the next due call to the network, if any; returns whether there was one. Raises NetworkFailsError."""
        start_ns = self._clock_ns()
        batch = self.scheduler.next_batch(self.streams.values(), start_ns)
        if batch is not None:
            self._run(batch, start_ns)
        for stream in [stream for stream in self.streams.values() if stream.inner.done]:
            self._finish(stream)
        self._update_overload()
        return batch is not None

    def _update_overload(self) -> None:
        """Change the chunk size if the overload level has changed, and report it at once."""
        if self.overload is None or not self.overload.update(self._clock_ns()):
            return
        self.scheduler.use_chunk_frames(self.overload.chunk_frames)
        log.warning("%s", self.overload)
        self._report_now = True

    def _run(self, batch: Batch, start_ns: int) -> None:
        cpu_ns = self._cpu_ns() if self._cpu_ns else 0
        try:
            outputs = self.vocoder.step([stream.inner for stream in batch.streams], batch.frames)
        except Exception as error:  # the edge between streams
            for stream in batch.streams:
                self._fail(stream.key, error)
            self._count_failure(error)
            return
        self._failed_calls = 0
        end_ns = self._clock_ns()
        self._work.busy_ns += end_ns - start_ns
        self._work.cpu_ns += self._cpu_ns() - cpu_ns if self._cpu_ns else 0
        self._work.batches += 1
        for stream, samples in zip(batch.streams, outputs):
            stream.served_ns = end_ns
            self._work.samples += len(samples)
            due_ns = self.scheduler.due_ns(stream, batch.frames)
            self._emit(stream, samples, due_ns, start_ns, end_ns, len(batch.streams))
            if self.overload:
                self.overload.add_chunk(self.scheduler.advance_deadline(stream, batch.frames, end_ns))

    def _count_failure(self, error: Exception) -> None:
        self._failed_calls += 1
        if self._failed_calls >= MAX_FAILED_CALLS:
            raise NetworkFailsError(
                f"{self._failed_calls} calls to the network have failed, one after the other; the last one with "
                f"{type(error).__name__}: {error}"
            ) from error

    def _emit(self, stream: EngineStream, samples: Floats, due_ns: int, start_ns: int, end_ns: int, batch: int) -> None:
        inner, trigger = stream.inner, stream.trigger(self.vocoder.look_ahead_frames)
        peak = float(np.abs(samples).max(initial=0.0))
        silenced = not peak <= DIVERGED  # true for NaN
        if silenced:
            note_divergence(stream)
            samples, peak = np.zeros_like(samples), 0.0
        first = inner.first_frame * self.vocoder.hop + inner.samples_out - len(samples)
        stream.end_sent = inner.done
        self._send(
            ipc.Pcm(
                key=stream.key,
                first_sample=first,
                samples=len(samples),
                last=inner.done,
                frames_done=inner.frames_done,
                t_client_ns=trigger.client_ns if trigger else 0,
                t_gateway_ns=trigger.gateway_ns if trigger else 0,
                t_engine_ns=trigger.engine_ns if trigger else 0,
                t_due_ns=due_ns,
                t_start_ns=start_ns,
                t_end_ns=end_ns,
                batch=batch,
                audio=samples,
                phase=inner.phase,
                peak=peak if peak > 1 else 0.0,
                silenced=silenced,
                attempt=stream.attempt,
            )
        )

    def _finish(self, stream: EngineStream) -> None:
        # If the last frame was rendered before the end of the utterance was known, no Pcm has said `last` yet.
        if not stream.end_sent:
            now_ns = self._clock_ns()
            self._emit(stream, np.zeros(0, np.float32), now_ns, now_ns, now_ns, 1)
        self._drop(stream.key)

    # ------------------------------------------------------------- telemetry

    def load(self) -> ipc.Load | None:
        """What was done since the last report: once a second, and when the overload level changes; else None."""
        now_ns, work = self._clock_ns(), self._work
        if now_ns - work.since_ns < LOAD_EVERY_NS and not self._report_now:
            return None
        seconds = max(1, now_ns - work.since_ns) / 1e9
        stats = ipc.EngineLoad(
            streams=len(self.streams),
            busy=round(work.busy_ns / 1e9 / seconds, 4),
            stolen=round(1 - work.cpu_ns / work.busy_ns, 4) if self._cpu_ns and work.busy_ns else None,
            batches_per_s=round(work.batches / seconds, 2),
            audio_per_s=round(work.samples / self.vocoder.rate_hz / seconds, 4),
            rss_bytes=rss_bytes(),
            late=None if self.overload is None else self.overload.late_share,
            level=None if self.overload is None else self.overload.level,
            degraded=None if self.overload is None else self.overload.describe(),
        )
        self._work, self._report_now = Work(now_ns), False
        return ipc.Load(stats=stats)


def note_divergence(stream: EngineStream) -> None:
    """Log, once, that a stream's samples are silence instead, because they have diverged (above DIVERGED, or NaN).

    A network's exponentials can do so on a mel that is unlike those of its training.
    """
    if not stream.has_diverged:
        stream.has_diverged = True
        log.warning(
            "stream %d diverged far beyond full scale; silenced meanwhile: use mels of the voice's kind", stream.key
        )
