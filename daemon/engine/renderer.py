"""The streams of one voice, rendered: link messages in, due calls to the network, samples and reports out.

Rules: no socket, no thread; messages go out through a `send`, time is passed in. Who is due is scheduler.py, what happens
when it falls behind overload.py. Nothing here knows a client, a session or a sound device.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.engine.overload import Overload
from glowd.daemon.engine.scheduler import Arrival, Batch, Entry, Scheduler
from glowd.daemon.runtime.system import rss_bytes
from glowd.daemon.wire.fields import Message
from glowd.flow.mel import Floats
from glowd.flow.timing import frames_per_call
from glowd.flow.vocoder import Vocoder

LOAD_EVERY_NS = 1_000_000_000
RUNAWAY = 4.0
"""Of full scale. Speech that is a little too loud is cut by the device; what is louder than this is no speech."""

log = logging.getLogger("glowd.engine")


class Renderer:
    """Streams of one vocoder, fed by link messages. Owner of every Entry; single-threaded."""

    def __init__(
        self,
        vocoder: Vocoder,
        scheduler: Scheduler,
        send: Callable[[Message], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        work_ns: Callable[[], int] | None = None,
    ) -> None:
        """`work_ns`: the processor's time that calls take, where that is all that they should take."""
        self.vocoder, self.scheduler, self._send = vocoder, scheduler, send
        self._clock_ns, self._work_ns = clock_ns, work_ns
        self.entries: dict[int, Entry] = {}
        self.overload = None if vocoder.whole_utterance else self._overload()
        self._busy_ns = self._worked_ns = self._batches = self._rendered = 0
        self._reported_ns, self._has_news = clock_ns(), False

    def _overload(self) -> Overload:
        # A voice whose chunk is fixed has no larger ones to offer: it goes from normal to refusing.
        chunk_frames = self.scheduler.chunk_frames
        largest = frames_per_call(self.vocoder, self.scheduler.max_chunk_frames)
        return Overload(chunk_frames, max(chunk_frames, largest), self._clock_ns())

    # ------------------------------------------------------------ messages in

    def handle(self, message: Message) -> None:
        """Apply one link message. A stream that cannot go on is reported as Failed; the others are not touched."""
        try:
            match message:
                case ipc.Start():
                    self._drop(message.key)
                    sigma = None if message.sigma < 0 else message.sigma
                    stream = self.vocoder.open(message.seed, message.first_frame, sigma)
                    self.entries[message.key] = Entry(message.key, stream)
                case ipc.Frames() if entry := self.entries.get(message.key):
                    self._frames(entry, message)
                case ipc.Finish() if entry := self.entries.get(message.key):
                    entry.stream.end()
                    entry.ended_ns = self._clock_ns()
                case ipc.Drop():
                    self._drop(message.key)
                case ipc.DropAll():
                    for key in list(self.entries):
                        self._drop(key)
        except (ValueError, RuntimeError) as error:
            self._fail(getattr(message, "key", 0), error)

    def _frames(self, entry: Entry, message: ipc.Frames) -> None:
        if message.first_frame != entry.stream.frames_in:
            raise ValueError(f"frames begin at {message.first_frame}, expected {entry.stream.frames_in}")
        entry.stream.push(message.mel)
        now_ns = self._clock_ns()
        entry.arrivals.append(Arrival(entry.stream.frames_in, message.t_client_ns, message.t_gateway_ns, now_ns))

    def _drop(self, key: int) -> None:
        if entry := self.entries.pop(key, None):
            self.vocoder.close(entry.stream)

    def _fail(self, key: int, error: Exception) -> None:
        log.error("stream %d failed: %s", key, error, exc_info=error)
        self._drop(key)
        self._send(ipc.Failed(key=key, text=f"{type(error).__name__}: {error}"[:500]))

    # --------------------------------------------------------------- network

    def turn(self) -> bool:
        """Make the next due call to the network, if any; returns whether there was one."""
        start_ns = self._clock_ns()
        batch = self.scheduler.next_batch(self.entries.values(), start_ns)
        if batch is not None:
            self._run(batch, start_ns)
        for entry in [e for e in self.entries.values() if e.stream.done]:
            self._finish(entry)
        self._keep_pace()
        return batch is not None

    def _keep_pace(self) -> None:
        """Degrade or recover when it is time to, and say so at once."""
        if self.overload is None or not self.overload.turn(self._clock_ns()):
            return
        self.scheduler.degrade(self.overload.chunk_frames)
        log.warning("%s", self.overload)
        self._has_news = True

    def _run(self, batch: Batch, start_ns: int) -> None:
        work_ns = self._work_ns() if self._work_ns else 0
        try:
            outputs = self.vocoder.step([entry.stream for entry in batch.entries], batch.frames)
        except (ValueError, RuntimeError) as error:
            for entry in batch.entries:
                self._fail(entry.key, error)
            return
        end_ns = self._clock_ns()
        self._busy_ns += end_ns - start_ns
        self._worked_ns += self._work_ns() - work_ns if self._work_ns else 0
        self._batches += 1
        for entry, samples in zip(batch.entries, outputs):
            entry.served_ns = end_ns
            self._rendered += len(samples)
            self._emit(entry, bearable(entry, samples), start_ns, end_ns, len(batch.entries))
            if self.overload:
                self.overload.chunk(self.scheduler.late_ns(entry, batch.frames, end_ns))

    def _emit(self, entry: Entry, samples: Floats, start_ns: int, end_ns: int, batch: int) -> None:
        stream, trigger = entry.stream, entry.trigger(self.vocoder.look_ahead_frames)
        first = stream.first_frame * self.vocoder.hop + stream.samples_out - len(samples)
        entry.announced_end = stream.done
        self._send(
            ipc.Pcm(
                key=entry.key,
                first_sample=first,
                samples=len(samples),
                last=stream.done,
                frames_done=stream.frames_done,
                t_client_ns=trigger.client_ns if trigger else 0,
                t_gateway_ns=trigger.gateway_ns if trigger else 0,
                t_engine_ns=trigger.engine_ns if trigger else 0,
                t_start_ns=start_ns,
                t_end_ns=end_ns,
                batch=batch,
                audio=samples,
            )
        )

    def _finish(self, entry: Entry) -> None:
        # An utterance whose last frame was rendered before its end was known still owes the word that it is over.
        if not entry.announced_end:
            now_ns = self._clock_ns()
            self._emit(entry, np.zeros(0, np.float32), now_ns, now_ns, 1)
        self._drop(entry.key)

    # ------------------------------------------------------------- telemetry

    def load(self) -> ipc.Load | None:
        """A report of what was done since the last one: once a second, and when the engine degrades or recovers."""
        now_ns = self._clock_ns()
        if now_ns - self._reported_ns < LOAD_EVERY_NS and not self._has_news:
            return None
        seconds = max(1, now_ns - self._reported_ns) / 1e9
        stats = ipc.EngineLoad(
            streams=len(self.entries),
            busy=round(self._busy_ns / 1e9 / seconds, 4),
            stolen=round(1 - self._worked_ns / self._busy_ns, 4) if self._work_ns and self._busy_ns else None,
            batches_per_s=round(self._batches / seconds, 2),
            audio_per_s=round(self._rendered / self.vocoder.rate_hz / seconds, 4),
            rss_bytes=rss_bytes(),
            late=None if self.overload is None else self.overload.late_share,
            level=None if self.overload is None else self.overload.level,
            degraded=None if self.overload is None else self.overload.describe(),
        )
        self._busy_ns = self._worked_ns = self._batches = self._rendered = 0
        self._reported_ns, self._has_news = now_ns, False
        return ipc.Load(stats=stats)


def bearable(entry: Entry, samples: Floats) -> Floats:
    """The samples, or as much silence where they run away: exponentials do, on a mel that a voice has never met."""
    if np.abs(samples).max(initial=0.0) <= RUNAWAY:  # not so for NaN
        return samples
    if not entry.ran_away:
        entry.ran_away = True
        log.warning(
            "stream %d runs beyond full scale; silenced where it does: is its mel of the voice's kind?", entry.key
        )
    return np.zeros_like(samples)
