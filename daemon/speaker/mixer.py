"""The mixer: many streams in, one signal out, and an exact account of what was heard of each.

Rules: pure and passive. Numpy only; no device, no socket, no thread, no clock: time is the count of samples mixed.
One owner. What happens is told as events (track.py) that carry the output sample they belong to; whoever owns the
mixer knows when that sample is heard.

The sum is guarded by a soft limiter, not a clip: below KNEE (-1 dB) samples pass bit for bit, above it they bend
smoothly towards 1. It has no memory, so it cannot pump, and two loud streams distort a little instead of crackling.
"""

import numpy as np

from glowd.daemon.speaker.track import Cut, Drained, Event, Phase, Reached, Samples, Starved, Track

__all__ = ["KNEE", "Cut", "Drained", "Event", "Mixer", "Reached", "Samples", "Starved"]

KNEE = 0.891
DETACH_FADE_MS = 10


class Mixer:
    """Mixes streams at one rate. A stream is attached, then lives until its Drained or Cut event, or until detached."""

    def __init__(self, rate_hz: int, max_block_samples: int = 4096) -> None:
        self.rate_hz = rate_hz
        self.mixed_samples = 0  # the output's clock: index of the next sample to be mixed
        self.limited_samples = 0  # how many samples the limiter has bent
        self._tracks: dict[int, Track] = {}
        self._leaving: list[Track] = []  # detached, still fading
        self._events: list[Event] = []
        self._block, self._scratch = np.zeros((2, max_block_samples), np.float32)

    # ---------------------------------------------------------------- commands

    def attach(self, key: int, gain_db: float = 0.0, prefill_samples: int = 0, first_sample: int = 0) -> None:
        """Add a stream that starts when `prefill_samples` are there or its end is. Raises ValueError: key in use.

        One that starts in its middle, at `first_sample`, is faded in.
        """
        if key in self._tracks:
            raise ValueError(f"track {key} exists already")
        self._tracks[key] = Track(key, factor(gain_db), prefill_samples, first_sample, self.rate_hz, self._events)

    def push(self, key: int, first_sample: int, samples: Samples, last: bool = False) -> None:
        """Queue samples [n]; the array is kept, not copied. Unknown keys are ignored: samples may outrun a flush.

        Raises ValueError when samples are not the next ones.
        """
        if track := self._tracks.get(key):
            track.push(first_sample, samples, last)

    def pause(self, key: int) -> None:
        """Fade the stream out and hold its position."""
        if track := self._tracks.get(key):
            track.pause()

    def resume(self, key: int) -> None:
        """Let a paused stream go on, faded in."""
        if track := self._tracks.get(key):
            track.resume()

    def gain(self, key: int, gain_db: float) -> None:
        """Glide to a new gain."""
        if track := self._tracks.get(key):
            track.gain(factor(gain_db))

    def flush(self, key: int, fade_samples: int) -> None:
        """Fade the stream out within `fade_samples` and drop what is left; a Cut event tells what was heard."""
        if track := self._tracks.get(key):
            track.flush(fade_samples, self.mixed_samples)
            self._sweep()

    def detach(self, key: int) -> None:
        """As `flush`, quickly and without an event; the key is free at once."""
        if track := self._tracks.pop(key, None):
            track.silent_end = True
            track.flush(DETACH_FADE_MS * self.rate_hz // 1000, self.mixed_samples)
            self._leaving.append(track)
            self._sweep()

    def interrupt(self) -> None:
        """The output has stopped: streams hold their position; fades under way are over, flushes are done at once."""
        for track in [*self._tracks.values(), *self._leaving]:
            track.interrupt(self.mixed_samples)
        self._sweep()

    def miss(self, missing_samples: int) -> None:
        """The device has run dry for about `missing_samples`: a gap in every stream that sounds."""
        for track in self._tracks.values():
            track.miss(missing_samples, self.mixed_samples)

    # ---------------------------------------------------------------- output

    def mix(self, samples: int) -> Samples:
        """The next `samples` of the mix, float32 [samples]: a view that the next call overwrites."""
        assert 0 < samples <= len(self._block), samples
        out = self._block[:samples]
        out.fill(0)
        for track in [*self._tracks.values(), *self._leaving]:
            track.add_to(out, self._scratch, self.mixed_samples)
        self.mixed_samples += samples
        self._limit(out)
        self._sweep()
        return out

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        taken = self._events.copy()
        self._events.clear()
        return taken

    @property
    def keys(self) -> list[int]:
        """The streams that are attached."""
        return list(self._tracks)

    def _limit(self, out: Samples) -> None:
        peak = max(float(out.max()), -float(out.min()))
        if peak <= KNEE:
            return
        np.nan_to_num(out, copy=False, posinf=1.0, neginf=-1.0)  # what is no number fails the comparison above
        loud = np.abs(out) > KNEE
        self.limited_samples += int(np.count_nonzero(loud))
        bent = KNEE + (1 - KNEE) * np.tanh((np.abs(out[loud]) - KNEE) / (1 - KNEE))
        out[loud] = np.copysign(bent, out[loud])

    def _sweep(self) -> None:
        for key in [key for key, track in self._tracks.items() if track.phase is Phase.DONE]:
            del self._tracks[key]
        if self._leaving:
            self._leaving = [track for track in self._leaving if track.phase is not Phase.DONE]


def factor(gain_db: float) -> float:
    """dB as a factor of amplitude."""
    return float(10 ** (gain_db / 20))
