"""One stream inside the mixer: when its samples may be played, and how it becomes silent without a click.

Rules: arithmetic only. No clock, no device, no thread, no other stream. `at` is an index on the mixer's own output, the
only measure of time here. Sample indices are absolute in the stream's utterance. The queue holds samples of the device,
the intake knows to which samples of the stream they belong.

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

from glowd.daemon.speaker.catch_up import CatchUp, Policy
from glowd.daemon.speaker.drift import Arrival
from glowd.daemon.speaker.events import Event, Finished, Flushed, Progress, Underrun
from glowd.daemon.speaker.intake import Intake
from glowd.daemon.speaker.ramp import Ramp
from glowd.daemon.speaker.sample_queue import SampleQueue, Samples

WHOLE_BLOCK = 1 << 62
STARVE_FADE_MS, PAUSE_FADE_MS, GAIN_FADE_MS, DETACH_FADE_MS = 5, 10, 20, 10
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackSettings:
    """How a stream is played; lengths in its own samples. `rate_hz` 0: that of the device.

    It starts once `prefill` samples are there. With `first_sample` > 0 it continues after a gap of `missing` so far.
    """

    rate_hz: int = 0
    gain: float = 1.0
    prefill: int = 0
    first_sample: int = 0
    missing: int | None = None
    policy: Policy = Policy.AUTO
    max_lead: int = 0


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of fades and reports, in samples of the device."""

    starve_fade: int
    pause_fade: int
    gain_fade: int
    detach_fade: int
    progress: int

    @classmethod
    def at_rate(cls, rate_hz: int) -> "Lengths":
        """The lengths at a sample rate."""
        times_ms = (STARVE_FADE_MS, PAUSE_FADE_MS, GAIN_FADE_MS, DETACH_FADE_MS, PROGRESS_EVERY_MS)
        return cls(*(time_ms * rate_hz // 1000 for time_ms in times_ms))


@dataclass(slots=True)
class Gap:
    """A gap that is not over: where it began on the output, the sample it delays, its length so far on the output."""

    at: int
    sample: int
    missing: int = 0
    by_device: bool = False


class Track:
    """One stream of the mix. Owner: the mixer, which takes `events`. A detached track is `silent`: it emits no Flushed."""

    def __init__(
        self, key: int, settings: TrackSettings, device_hz: int, at: int, lengths: Lengths, events: list[Event]
    ) -> None:
        self.key, self.phase, self.ended, self.silent = key, Phase.FILLING, False, False
        self.is_orphan = False
        """Whether the gateway that attached it is lost."""
        self.is_told_of_limit = self._ignores_known = False
        self._before: Track | None = None  # is played first
        self._played_at: int | None = None  # the output sample after the last one, once all were played
        self._lengths, self._events, self._progress_at = lengths, events, 0
        rate_hz, first = settings.rate_hz or device_hz, settings.first_sample
        catch_up = CatchUp(rate_hz, settings.policy, settings.prefill, settings.max_lead)
        self._intake, self._queue = Intake(first, rate_hz, device_hz, catch_up), SampleQueue()
        self._gain, self._level = Ramp(settings.gain), Ramp(0.0 if first else 1.0)
        self._prefill = max(self._intake.to_device(settings.prefill), lengths.starve_fade + 1)
        missing = settings.missing
        self._gap = None if missing is None else Gap(at, first, self._intake.to_device(missing), by_device=True)

    # ---------------------------------------------------------------- commands

    def push(self, first_sample: int, samples: Samples, last: bool, t_ns: int = 0) -> None:
        """Queue samples [n] of the stream; their frames arrived at `t_ns`. Raises ValueError if they are not the next ones."""
        if self._ignores_known:
            known = max(0, min(self._intake.end - first_sample, len(samples)))
            first_sample, samples = first_sample + known, samples[known:]
            if self.ended or first_sample < self._intake.end:
                return
        if self.phase is Phase.FLUSHING:
            self._intake.end += len(samples)
            return
        if self.ended or first_sample != self._intake.end:
            expected = "none, because the stream has ended" if self.ended else str(self._intake.end)
            raise ValueError(f"track {self.key}: samples begin at {first_sample}; expected {expected}")
        self._queue.push(self._intake.push(samples, last, len(self._queue), t_ns))
        if self.phase is Phase.PLAYING:
            self._intake.catch_up.note_lead(self._intake.lead(len(self._queue)))
        self.ended = last

    def note_arrival(self, arrival: Arrival, sounds_ns: int) -> None:
        """Frames of the stream have arrived. `sounds_ns`: when the next sample that is mixed sounds, by the same clock."""
        if self.phase is Phase.PLAYING:
            self._intake.note_arrival(arrival, sounds_ns, self.sample)

    def wait_for(self, before: "Track | None") -> None:
        """Be silent until another track has been played; be flushed, if that one is not played to its end."""
        self._before = before

    def orphan(self) -> None:
        """The gateway that attached it is lost, and a gap that it is in is not the client's."""
        self.is_orphan = True
        if self._gap:
            self._gap.by_device = True

    def go_on(self) -> None:
        """A new gateway has attached it, and pushes samples again that it may have had."""
        self.is_orphan, self._ignores_known = False, True
        self._intake.drift.restart()
        self.resume()

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
        """Fade out over at most `fade_samples` of the stream, of what is queued, and drop the rest."""
        if self.phase in (Phase.FLUSHING, Phase.DONE):
            return
        self._end_gap()
        is_audible = self.phase in (Phase.PLAYING, Phase.STARVING, Phase.PAUSING)
        fade = self._intake.to_device(fade_samples) if is_audible else 0
        self._queue.truncate(min(fade, len(self._queue)))
        self._fade_out(len(self._queue), Phase.FLUSHING)
        self._end_phase(at)

    def detach(self, at: int) -> None:
        """Fade out quickly, without an event."""
        self.silent = True
        self.flush(self._intake.to_stream(self._lengths.detach_fade), at)

    def stop_output(self, at: int) -> None:
        """The device has stopped: a fade under way is over; the next sound is faded in."""
        if self.phase is Phase.FLUSHING:
            self._queue.truncate(0)
            self._finish_flush(at)
        elif self.phase is Phase.PLAYING:
            self.phase, self._level = Phase.FILLING, Ramp(0.0)
            self._gap = Gap(at, self.sample, by_device=True)
        elif self.phase in AFTER_FADE:
            self.phase, self._level = AFTER_FADE[self.phase], Ramp(0.0)

    def miss(self, missing: int, at: int) -> None:
        """The device was silent for `missing` samples of its own: an underrun, if this track was playing or in a gap."""
        if self.phase is Phase.PLAYING:
            self._gap = Gap(at, self.sample, missing, by_device=True)
            self._end_gap()
            self._intake.drift.restart()
        elif self._gap:
            self._gap.missing += missing

    # ---------------------------------------------------------------- mixing

    def add_to(self, out: Samples, scratch: Samples, at: int) -> bool:
        """Add the next samples to `out` [n], which begins at output sample `at`; returns whether there were any.

        `scratch` [>= n] is overwritten.
        """
        began = filled = self._begin_after(at)
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
            self._gap.missing += max(0, len(out) - filled)
        return filled > began

    def _begin_after(self, at: int) -> int:
        """How much of a block that begins at output sample `at` belongs to the track that is played first: up to all of it."""
        if self._before is None:
            return 0
        before, ends_at = self._before, self._before._played_at
        if ends_at is None:
            if before.phase is Phase.DONE:  # it was flushed or dropped, and what follows it is not to be heard either
                self.flush(0, at)
            return WHOLE_BLOCK
        self._before = None
        self._intake.drift.go_on_from(before._intake.drift)
        return max(0, ends_at - at)

    def advance_phase(self, at: int) -> None:
        """Begin to play if enough samples are there; begin to fade out if only the reserve is left."""
        if self.phase is Phase.FILLING and (self.ended or len(self._queue) >= self._prefill):
            self._start(at)
        if self.phase is Phase.PLAYING and not self.ended and len(self._queue) <= self._lengths.starve_fade:
            self._gap = Gap(at + len(self._queue), self._intake.end, by_device=self.is_orphan)
            self._fade_out(len(self._queue), Phase.STARVING)

    def playable(self, limit: int) -> int:
        """How many samples, at most `limit`, can be played in this phase."""
        if self.phase is Phase.PLAYING:
            reserve = 0 if self.ended else self._lengths.starve_fade
            return min(limit, len(self._queue) - reserve)
        return min(limit, self._level.steps_left) if self.phase in AFTER_FADE else 0

    def _start(self, at: int) -> None:
        self.phase = Phase.PLAYING
        self._intake.drift.restart()
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
            self.phase, self._played_at = Phase.DONE, at
            self._events.append(Finished(self.key, at, self._intake.end))
        elif self.phase is Phase.PLAYING and at >= self._progress_at:
            self._report_progress(at)

    @property
    def sample(self) -> int:
        """The sample of the stream to be played next."""
        return self._intake.sample(self._queue.played)

    def _report_progress(self, at: int) -> None:
        catch_up, drift = self._intake.catch_up, self._intake.drift
        behind = catch_up.excess(self._intake.lead(len(self._queue)))
        self._events.append(Progress(self.key, at, self.sample, behind, catch_up.skipped, drift.latency_s, drift.ppm))
        self._progress_at = at + self._lengths.progress

    def _fade_out(self, samples: int, phase: Phase) -> None:
        self._level.move_to(0.0, min(samples, len(self._queue)))
        self.phase = phase

    def _finish_flush(self, at: int) -> None:
        self.phase = Phase.DONE
        if not self.silent:
            self._events.append(Flushed(self.key, at, self.sample - 1, self._intake.end - self.sample))

    def _end_gap(self, is_heard: bool = False) -> None:
        """Report the gap that is over. A gap of no samples was still a dip, if sound follows (`is_heard`)."""
        gap, self._gap = self._gap, None
        if gap and (gap.missing or is_heard):
            missing = max(0, self._intake.to_stream(gap.missing))
            self._events.append(Underrun(self.key, gap.at, gap.sample, missing, gap.by_device))
            self._intake.catch_up.gap(missing)
