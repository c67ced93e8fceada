"""One stream inside the mixer: a queue of samples that knows when it may sound, and how it falls silent without a click.

Rules: arithmetic only. No clock, no device, no thread, no other stream. Sample indices are absolute in the stream's
generation; `at` is an index on the mixer's own output, the only measure of time that this file knows.

A track that sounds with its end unknown never plays its last few milliseconds at full level: they are its reserve, so
that a queue that runs dry is faded out in time. A fade takes samples from the queue like any other sound, hence nothing
is lost or played twice: what a gap costs is time.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

STARVE_FADE_MS, PAUSE_FADE_MS, GAIN_FADE_MS = 5, 10, 20
REPORT_EVERY_MS = 50


@dataclass(frozen=True, slots=True)
class Reached:
    """Output sample `at` is sample `sample` of the stream. At every start of sound, then about every 50 ms of it."""

    key: int
    at: int
    sample: int


@dataclass(frozen=True, slots=True)
class Starved:
    """From `at` on, `missing` samples of silence stood where sample `sample` should have. Told when the gap is over."""

    key: int
    at: int
    sample: int
    missing: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The stream's end is known and its last sample is before output sample `at`: `samples` were played in all."""

    key: int
    at: int
    samples: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The flushed stream is silent from `at` on; `last_sample` is -1 when none was played."""

    key: int
    at: int
    last_sample: int
    dropped: int


Event = Reached | Starved | Drained | Cut


class Ramp:
    """A value that glides to its target along a raised cosine: no step, and no kink at either end."""

    def __init__(self, value: float) -> None:
        self._start = self._target = value
        self._steps = self._done = 0

    @property
    def value(self) -> float:
        """Where it is: the value that was last taken."""
        if self._done >= self._steps:
            return self._target
        share = self._done / (self._steps + 1)
        return self._start + (self._target - self._start) * (0.5 - 0.5 * math.cos(math.pi * share))

    @property
    def steps_left(self) -> int:
        """Samples until the target is reached."""
        return self._steps - self._done

    def glide(self, target: float, steps: int) -> None:
        """Head for `target` from the present value, to be there after `steps` samples."""
        self._start, self._target, self._steps, self._done = self.value, target, steps, 0

    def take(self, samples: int) -> float | Samples:
        """The next `samples` values: one float while the value stands, else [samples]."""
        if self.steps_left == 0:
            return self._target
        steps = np.arange(self._done, self._done + samples)
        self._done = min(self._done + samples, self._steps)
        share = np.minimum((steps + 1) / (self._steps + 1), 1)
        values = self._start + (self._target - self._start) * (0.5 - 0.5 * np.cos(np.pi * share))
        values[steps >= self._steps] = self._target
        return values.astype(np.float32)


class Phase(Enum):
    """What a track does with the next sample."""

    FILLING = auto()  # silent until the cushion is there: at the start, and again after a gap
    SOUNDING = auto()
    FADING = auto()  # on its way to the phase in `_after`
    PAUSED = auto()
    DONE = auto()


class Track:
    """One stream of the mix. Owner: the mixer."""

    def __init__(
        self, key: int, gain: float, prefill_samples: int, first_sample: int, rate_hz: int, events: list[Event]
    ) -> None:
        self.key, self.phase, self.ended, self.silent_end = key, Phase.FILLING, False, False
        self._after, self._flushing = Phase.FILLING, False
        self._chunks: deque[Samples] = deque()
        self._head, self._last = first_sample, first_sample - 1  # index of the next sample to play, of the last played
        self._queued = self._dropped = 0  # samples in _chunks that will be played; samples flushed
        self._gain, self._level = Ramp(gain), Ramp(0.0 if first_sample else 1.0)
        self._gap_at = self._missing = 0  # the gap: where on the output it began, its length; none while _starved < 0
        self._starved = -1  # the index of the sample that the gap stands before
        self._reserve = STARVE_FADE_MS * rate_hz // 1000
        self._pause_fade, self._gain_fade = PAUSE_FADE_MS * rate_hz // 1000, GAIN_FADE_MS * rate_hz // 1000
        self._report_every, self._report_at = REPORT_EVERY_MS * rate_hz // 1000, 0
        self._cushion = max(prefill_samples, self._reserve + 1)
        self._events = events

    # ---------------------------------------------------------------- commands

    def push(self, first_sample: int, samples: Samples, last: bool) -> None:
        """Queue samples [n] of the stream. Raises ValueError when they are not the next ones."""
        if self._flushing:
            self._dropped += len(samples)
            return
        wanted = self._head + self._queued
        if self.ended or first_sample != wanted:
            raise ValueError(
                f"track {self.key}: samples from {first_sample} on, wanted {'none' if self.ended else wanted}"
            )
        if len(samples):
            self._chunks.append(samples)
            self._queued += len(samples)
        self.ended = last

    def gain(self, gain: float) -> None:
        """Glide to a new gain (a factor)."""
        self._gain.glide(gain, self._gain_fade)

    def pause(self) -> None:
        """Fade out and stand still."""
        if self._flushing or self.phase is Phase.DONE:
            return
        if self.phase is Phase.SOUNDING:
            self._fade(self._pause_fade, Phase.PAUSED)
        elif self.phase is Phase.FADING:
            self._after = Phase.PAUSED
        else:
            self.phase = Phase.PAUSED
        self._end_gap()

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        if self.phase is Phase.PAUSED:
            self.phase = Phase.FILLING
        elif self.phase is Phase.FADING and self._after is Phase.PAUSED:
            self.phase = Phase.SOUNDING
            self._level.glide(1.0, self._pause_fade)

    def flush(self, fade_samples: int, at: int) -> None:
        """Fade out over what is queued, at most `fade_samples` of it, and drop the rest."""
        if self._flushing or self.phase is Phase.DONE:
            return
        self._flushing = True
        self._end_gap()
        audible = self.phase in (Phase.SOUNDING, Phase.FADING)
        self._drop_from(min(fade_samples, self._queued) if audible else 0)
        self._fade(self._queued, Phase.DONE)
        self._settle(at)

    def interrupt(self, at: int) -> None:
        """The output has stopped: a fade that was under way is over; the next sound fades in."""
        if self.phase is Phase.FADING:
            self.phase = self._after
            if self._flushing:
                self._drop_from(0)
                self._finish(at)
            self._level = Ramp(0.0)
        elif self.phase is Phase.SOUNDING:
            self.phase, self._level = Phase.FILLING, Ramp(0.0)

    def miss(self, missing: int, at: int) -> None:
        """The device ran dry by itself while this track sounded."""
        if self.phase is Phase.SOUNDING:
            self._events.append(Starved(self.key, at, self._head, missing))

    # ---------------------------------------------------------------- mixing

    def add_to(self, out: Samples, scratch: Samples, at: int) -> None:
        """Add the next samples to `out` [n], which begins at output sample `at`. `scratch` [>= n] is overwritten."""
        filled = 0
        while filled < len(out):
            run = self._run(len(out) - filled, at + filled)
            if run == 0:
                break
            self._play(out[filled : filled + run], scratch)
            filled += run
            self._settle(at + filled)
        if self.phase is Phase.FILLING and self._starved >= 0:
            self._missing += len(out) - filled

    def _run(self, limit: int, at: int) -> int:
        """How many samples, `limit` at most, can be played before something changes; 0: none now."""
        if self.phase is Phase.FILLING:
            if not (self.ended or self._queued >= self._cushion):
                return 0
            self._start(at)
        if self.phase is Phase.SOUNDING and not self.ended:
            if self._queued > self._reserve:
                return min(limit, self._queued - self._reserve)
            self._starved, self._gap_at, self._missing = self._head + self._queued, at + self._queued, 0
            self._fade(self._queued, Phase.FILLING)
        if self.phase is Phase.FADING:
            return min(limit, self._level.steps_left)
        return min(limit, self._queued) if self.phase is Phase.SOUNDING else 0

    def _start(self, at: int) -> None:
        if self._queued:
            self._end_gap(heard=True)
            self._events.append(Reached(self.key, at, self._head))
            self._report_at = at + self._report_every
        self.phase = Phase.SOUNDING
        if self._level.value < 1:
            self._level.glide(1.0, min(self._reserve, self._queued))
        self._settle(at)

    def _play(self, out: Samples, scratch: Samples) -> None:
        level, gain = self._level.take(len(out)), self._gain.take(len(out))
        factor = level * gain
        done = 0
        while done < len(out):
            chunk = self._chunks[0]
            run = min(len(chunk), len(out) - done)
            part = factor if isinstance(factor, float) else factor[done : done + run]
            np.multiply(chunk[:run], part, out=scratch[:run])
            out[done : done + run] += scratch[:run]
            done += run
            if run == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = chunk[run:]
        self._head += done
        self._queued -= done
        self._last = self._head - 1

    def _settle(self, at: int) -> None:
        """Change the phase where a fade or the stream is over at output sample `at`, and report the position."""
        if self.phase is Phase.FADING and self._level.steps_left == 0:
            self.phase = self._after
            if self._flushing:
                self._finish(at)
        elif self.phase is Phase.SOUNDING and self.ended and not self._queued:
            self.phase = Phase.DONE
            self._events.append(Drained(self.key, at, self._head))
        elif self.phase is Phase.SOUNDING and at >= self._report_at:
            self._events.append(Reached(self.key, at, self._head))
            self._report_at = at + self._report_every

    def _fade(self, steps: int, after: Phase) -> None:
        steps = min(steps, self._queued)
        self._level.glide(0.0, steps)
        self.phase, self._after = Phase.FADING, after

    def _drop_from(self, keep: int) -> None:
        """Keep the next `keep` queued samples and drop those behind them."""
        self._dropped += self._queued - keep
        self._queued = keep

    def _finish(self, at: int) -> None:
        self.phase = Phase.DONE
        self._chunks.clear()
        if not self.silent_end:
            self._events.append(Cut(self.key, at, self._last, self._dropped))

    def _end_gap(self, heard: bool = False) -> None:
        """Tell of the gap that is over. A gap of no samples was still a dip, if sound follows (`heard`)."""
        if self._starved >= 0 and (self._missing or heard):
            self._events.append(Starved(self.key, self._gap_at, self._starved, self._missing))
        self._starved = -1
