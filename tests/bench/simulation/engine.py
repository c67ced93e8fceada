"""An engine process of a simulation: the daemon's own renderer, scheduler and overload, on a clock that moves by a cost curve.

Rules: the loop is that of daemon/engine/process.py: take what has arrived, make one call that is due, report. Only the network
is missing: its step takes the time of the curve, and its samples are silence.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.engine.renderer import Renderer
from glowd.daemon.engine.scheduler import Scheduler
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Capacity
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.vocoder import BEGINNING, Origin, Stream, Vocoder
from tests.bench.simulation.cell import VOICE, voice_info
from tests.bench.simulation.curve import CostCurve
from tests.bench.simulation.fleet import as_ns
from tests.bench.simulation.inputs import CHUNK_FRAMES, MAX_CHUNK_FRAMES, MAX_WAIT_MS

Later = Callable[[float, Callable[[float], None]], None]


class SimulatedVocoder(Vocoder[Stream]):
    """Silence with the timeline of the included voice. A step calls `spent` with its seconds."""

    def __init__(self, curve: CostCurve, rng: np.random.Generator, spent: Callable[[float], None]) -> None:
        info = voice_info(None)
        self.name, self.format, self.sigma = "simulated", MelFormat(), 1.0
        self.look_ahead_frames, self.history_frames, self.latency_samples = (
            info.look_ahead_frames,
            info.history_frames,
            0,
        )
        self._curve, self._rng, self._spent = curve, rng, spent

    def open(self, seed: int = 0, origin: Origin = BEGINNING, sigma: float | None = None) -> Stream:
        """See Vocoder."""
        return Stream(seed, 1.0, self.format.n_mels, origin)

    def ready_frames(self, stream: Stream, limit: int) -> int | None:
        """See Vocoder."""
        held_back = 0 if stream.ended else self.look_ahead_frames
        ready = stream.frames_in - stream.frames_done - held_back
        return min(limit, ready) if ready > 0 else None

    def key(self, stream: Stream, frames: int) -> Hashable:
        """See Vocoder."""
        return frames

    def step(self, streams: Sequence[Stream], frames: int) -> list[Floats]:
        """See Vocoder."""
        noise = self._rng.lognormal(0.0, self._curve.figures.spread)
        self._spent(noise * self._curve.busy_s(len(streams), frames))
        for stream in streams:
            stream.rendered(frames, frames * self.hop)
        return [np.zeros(frames * self.hop, np.float32) for _ in streams]


class SimulatedEngine:
    """One engine and its loop. `send(message, at_s)` takes what it sends."""

    def __init__(
        self, name: str, curve: CostCurve, rng: np.random.Generator, later: Later,
        send: Callable[[Message, float], None], now_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.name, self.up, self._later, self._send, self._now_s = name, True, later, send, now_s
        self._inbox: list[tuple[float, Message]] = []
        self._woken_s = float("inf")
        vocoder = SimulatedVocoder(curve, rng, self._spend)
        scheduler = Scheduler(vocoder, CHUNK_FRAMES, MAX_CHUNK_FRAMES, curve.figures.max_batch, MAX_WAIT_MS)
        self.renderer = Renderer(vocoder, scheduler, lambda message: self._out(message), self._clock_ns)
        self.busy_s = 0.0

    def _clock_ns(self) -> int:
        return as_ns(self._now_s)

    def _spend(self, seconds: float) -> None:
        self._now_s += seconds
        self.busy_s += seconds

    def _out(self, message: Message) -> None:
        if self.up:
            self._send(message, self._now_s)

    # -------------------------------------------------------------------- the loop

    def arrive(self, message: Message, at_s: float) -> None:
        """A message arrives; it waits while a call runs."""
        if self.up:
            self._inbox.append((at_s, message))
            self._wake(max(at_s, self._now_s))

    def _wake(self, at_s: float) -> None:
        if at_s < self._woken_s:
            self._woken_s = at_s
            self._later(at_s, self.run)

    def run(self, now_s: float) -> None:
        """One pass of the loop, unless an earlier one has done what was to be done now."""
        if not self.up or now_s != self._woken_s:
            return
        self._woken_s = float("inf")
        self._now_s = max(self._now_s, now_s)
        arrived = [message for at_s, message in self._inbox if at_s <= self._now_s]
        self._inbox = self._inbox[len(arrived) :]
        for message in arrived:
            self.renderer.handle(message)
        self.renderer.step()
        if report := self.renderer.load():
            self._out(report)
        self._wake_next()

    def _wake_next(self) -> None:
        wait_ns = self.renderer.scheduler.wait_ns(self.renderer.streams.values(), self._clock_ns())
        times = [self._now_s + 0.5] + ([self._now_s + wait_ns / 1e9] if wait_ns is not None else [])
        self._wake(min(times + [max(at_s, self._now_s) for at_s, _ in self._inbox[:1]]))

    def crash(self) -> None:
        """It is gone, with everything that it knew."""
        self.up = False


def ready(capacity: Capacity) -> ipc.Ready:
    """What an engine says once a second."""
    return ipc.Ready(VOICE, voice_info(capacity), instance=1, device="cpu", threads=1)
