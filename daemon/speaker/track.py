"""One stream inside the mixer: when its samples may be played, and how it becomes silent without a click.

Rules: arithmetic only. No clock, no device, no thread, no other stream. `at` is an index on the mixer's own output, the
only measure of time here. Sample indices are absolute in the stream's utterance.

    FILLING --enough samples--> PLAYING --all played, stream ended--> DONE
       ^                          |  ^
       |                 too few  |  | resume (fades in)
       +--faded out-- STARVING <--+  |
       ^                          |  |
       | resume          pause    v  |         flush in any phase --> FLUSHING --faded out--> DONE
       +--- PAUSED <--faded out-- PAUSING

A playing track whose stream has not ended never plays its last few milliseconds at full level. They are its reserve, so
that it can fade out in time when no more samples come. A fade plays samples of the queue, so nothing is lost or played
twice; what a gap costs is time.
"""

from dataclasses import dataclass
from enum import Enum, auto

from glowd.daemon.speaker.events import Event, Finished, Flushed, Progress, Underrun
from glowd.daemon.speaker.ramp import Ramp
from glowd.daemon.speaker.sample_queue import SampleQueue, Samples

STARVE_FADE_MS, PAUSE_FADE_MS, GAIN_FADE_MS = 5, 10, 20
PROGRESS_EVERY_MS = 50


class Phase(Enum):
    """What a track does with its next sample."""

    FILLING = auto()
    """Silent until enough samples are there: at the start, and again after a gap."""
    PLAYING = auto()
    STARVING = auto()
    """Fading out, because no more samples have come."""
    PAUSING = auto()
    PAUSED = auto()
    FLUSHING = auto()
    DONE = auto()


AFTER_FADE = {Phase.STARVING: Phase.FILLING, Phase.PAUSING: Phase.PAUSED, Phase.FLUSHING: Phase.DONE}
"""The phases in which a track fades out, and the one that follows each."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of fades and reports, in samples."""

    starve_fade: int
    pause_fade: int
    gain_fade: int
    progress: int

    @classmethod
    def at_rate(cls, rate_hz: int) -> "Lengths":
        """The lengths at a sample rate."""
        times_ms = (STARVE_FADE_MS, PAUSE_FADE_MS, GAIN_FADE_MS, PROGRESS_EVERY_MS)
        return cls(*(time_ms * rate_hz // 1000 for time_ms in times_ms))


@dataclass(slots=True)
class Gap:
    """A gap that is not over: where it began on the output, the sample it delays, its length so far."""

    at: int
    sample: int
    missing: int = 0


class Track:
    """One stream of the mix. Owner: the mixer, which takes `events`. A detached track is `silent`: it emits no Flushed."""

    def __init__(
        self, key: int, gain: float, prefill_samples: int, first_sample: int, lengths: Lengths, events: list[Event]
    ) -> None:
        self.key, self.phase, self.ended, self.silent = key, Phase.FILLING, False, False
        self._lengths, self._events = lengths, events
        self._queue = SampleQueue(first_sample)
        self._gain, self._level = Ramp(gain), Ramp(0.0 if first_sample else 1.0)
        self._prefill = max(prefill_samples, lengths.starve_fade + 1)
        self._gap: Gap | None = None
        self._dropped = self._progress_at = 0

    # ---------------------------------------------------------------- commands

    def push(self, first_sample: int, samples: Samples, last: bool) -> None:
        """Queue samples [n] of the stream. Raises ValueError if they are not the next ones."""
        if self.phase is Phase.FLUSHING:
            self._dropped += len(samples)
            return
        if self.ended or first_sample != self._queue.end:
            expected = "none, because the stream has ended" if self.ended else str(self._queue.end)
            raise ValueError(f"track {self.key}: samples begin at {first_sample}; expected {expected}")
        self._queue.push(samples)
        self.ended = last

    def gain(self, gain: float) -> None:
        """Move to a new gain (a factor)."""
        self._gain.move_to(gain, self._lengths.gain_fade)

    def pause(self) -> None:
        """Fade out and hold the position."""
        if self.phase in (Phase.FLUSHING, Phase.DONE):
            return
        if self.phase is Phase.PLAYING:
            self._fade_out(self._lengths.pause_fade, Phase.PAUSING)
        else:
            self.phase = Phase.PAUSING if self.phase in AFTER_FADE else Phase.PAUSED
        self._end_gap()

    def resume(self) -> None:
        """Continue from where `pause` stopped."""
        if self.phase is Phase.PAUSED:
            self.phase = Phase.FILLING
        elif self.phase is Phase.PAUSING:
            self.phase = Phase.PLAYING
            self._level.move_to(1.0, self._lengths.pause_fade)

    def flush(self, fade_samples: int, at: int) -> None:
        """Fade out over at most `fade_samples` of what is queued, and drop the rest."""
        if self.phase in (Phase.FLUSHING, Phase.DONE):
            return
        self._end_gap()
        is_audible = self.phase in (Phase.PLAYING, Phase.STARVING, Phase.PAUSING)
        self._dropped += self._queue.truncate(min(fade_samples, len(self._queue)) if is_audible else 0)
        self._fade_out(len(self._queue), Phase.FLUSHING)
        self._end_phase(at)

    def stop_output(self, at: int) -> None:
        """The device has stopped: a fade under way is over; the next sound is faded in."""
        if self.phase is Phase.FLUSHING:
            self._dropped += self._queue.truncate(0)
            self._finish_flush(at)
        elif self.phase is Phase.PLAYING:
            self.phase, self._level = Phase.FILLING, Ramp(0.0)
        elif self.phase in AFTER_FADE:
            self.phase, self._level = AFTER_FADE[self.phase], Ramp(0.0)

    def miss(self, missing: int, at: int) -> None:
        """The device itself had no samples for a while: an underrun, if this track was playing."""
        if self.phase is Phase.PLAYING:
            self._events.append(Underrun(self.key, at, self._queue.head, missing))

    # ---------------------------------------------------------------- mixing

    def add_to(self, out: Samples, scratch: Samples, at: int) -> None:
        """Add the next samples to `out` [n], which begins at output sample `at`. `scratch` [>= n] is overwritten."""
        filled = 0
        while filled < len(out):
            self.advance_phase(at + filled)
            run = self.playable(len(out) - filled)
            if run == 0:
                break
            factor = self._level.take(run) * self._gain.take(run)
            self._queue.mix_into(out[filled : filled + run], factor, scratch)
            filled += run
            self._end_phase(at + filled)
        if self.phase is Phase.FILLING and self._gap:
            self._gap.missing += len(out) - filled

    def advance_phase(self, at: int) -> None:
        """Begin to play if enough samples are there; begin to fade out if only the reserve is left."""
        if self.phase is Phase.FILLING and (self.ended or len(self._queue) >= self._prefill):
            self._start(at)
        if self.phase is Phase.PLAYING and not self.ended and len(self._queue) <= self._lengths.starve_fade:
            self._gap = Gap(at + len(self._queue), self._queue.end)
            self._fade_out(len(self._queue), Phase.STARVING)

    def playable(self, limit: int) -> int:
        """How many samples, at most `limit`, can be played in this phase."""
        if self.phase is Phase.PLAYING:
            reserve = 0 if self.ended else self._lengths.starve_fade
            return min(limit, len(self._queue) - reserve)
        return min(limit, self._level.steps_left) if self.phase in AFTER_FADE else 0

    def _start(self, at: int) -> None:
        self.phase = Phase.PLAYING
        if len(self._queue):
            self._end_gap(is_heard=True)
            self._report_progress(at)
        if self._level.value < 1:
            self._level.move_to(1.0, min(self._lengths.starve_fade, len(self._queue)))
        self._end_phase(at)

    def _end_phase(self, at: int) -> None:
        """Leave the phase if its fade or the stream is over at output sample `at`; report progress while it plays."""
        if self.phase in AFTER_FADE and self._level.steps_left == 0:
            if self.phase is Phase.FLUSHING:
                self._finish_flush(at)
            else:
                self.phase = AFTER_FADE[self.phase]
        elif self.phase is Phase.PLAYING and self.ended and not len(self._queue):
            self.phase = Phase.DONE
            self._events.append(Finished(self.key, at, self._queue.head))
        elif self.phase is Phase.PLAYING and at >= self._progress_at:
            self._report_progress(at)

    def _report_progress(self, at: int) -> None:
        self._events.append(Progress(self.key, at, self._queue.head))
        self._progress_at = at + self._lengths.progress

    def _fade_out(self, samples: int, phase: Phase) -> None:
        self._level.move_to(0.0, min(samples, len(self._queue)))
        self.phase = phase

    def _finish_flush(self, at: int) -> None:
        self.phase = Phase.DONE
        if not self.silent:
            self._events.append(Flushed(self.key, at, self._queue.head - 1, self._dropped))

    def _end_gap(self, is_heard: bool = False) -> None:
        """Report the gap that is over. A gap of no samples was still a dip, if sound follows (`is_heard`)."""
        if self._gap and (self._gap.missing or is_heard):
            self._events.append(Underrun(self.key, self._gap.at, self._gap.sample, self._gap.missing))
        self._gap = None
