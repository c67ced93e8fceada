"""The mixer: many streams in, one signal out, and an exact account of what was played of each.

Rules: pure and passive. Numpy only; no device, no socket, no thread, no clock: time is the count of samples mixed.
One owner. What happens is reported as events (events.py), each with the output sample at which it happens; the owner of
the mixer knows when that sample is heard.

A soft limiter guards the sum, not a clip: below KNEE (-1 dB) samples pass unchanged, above it they bend smoothly
towards 1. It has no memory, so it cannot pump, and two loud streams distort a little instead of crackling.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from glowd.daemon.speaker.drift import Arrival
from glowd.daemon.speaker.events import Broken, Event, Limited
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import Lengths, Phase, Track, TrackSettings

KNEE = 0.891
TOO_LOUD = 1.1
"""Times full scale: what is limited from here on is heard to be."""
ORPHAN_S = 20.0
"""How long a stream whose gateway is lost waits to be attached again."""
REMEMBERED = 64
"""Streams that are gone, of which is remembered what was played: one may be attached again."""


class Mixer:
    """Mixes streams of any rate at the rate of the device. A stream stays until it is Finished, Flushed or detached.

    Commands for an unknown key are ignored: samples may arrive after a flush.
    """

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.mixed_samples = 0
        """The output's clock: index of the next sample to be mixed."""
        self.limited_samples = 0
        """Samples that the limiter has bent."""
        self._lengths = Lengths.at_rate(rate_hz)
        self._tracks: dict[int, Track] = {}
        self._detached: list[Track] = []  # still fading out
        self._played: dict[int, int] = {}  # of the newest streams that are gone
        self._orphans_end: int | None = None  # on the output's clock, while there are orphans
        self._events: list[Event] = []
        self._block, self._scratch = np.zeros((2, rate_hz), np.float32)  # one second, the longest block

    # ---------------------------------------------------------------- commands

    def attach(
        self, key: int, settings: TrackSettings = TrackSettings(), goes_on: bool = False, after: int = 0
    ) -> None:
        """Add a stream that starts once its prefill is there or it has ended. Raises ValueError for a key in use.

        A stream that does not start at sample 0 is faded in. One that `goes_on` was attached by a gateway that is lost: it
        plays on, or from where it was when it was dropped; and samples that it has had are ignored. It waits until the
        stream `after` has been played, if that is there.
        """
        track = self._tracks.get(key)
        if track is not None and track.is_orphan and not goes_on:
            self.detach(key)
            track = None
        if track is not None and not track.is_orphan:
            raise ValueError(f"track {key} exists already; detach it first")
        if track is None:
            first_sample = max(settings.first_sample, self._played.get(key, 0) if goes_on else 0)
            settings = replace(settings, first_sample=first_sample)
            track = Track(key, settings, self.rate_hz, self.mixed_samples, self._lengths, self._events)
            track.wait_for(self._tracks.get(after) if after else None)
            self._tracks[key] = track
        if goes_on:
            track.go_on()

    def orphan_all(self) -> None:
        """The gateway is lost: streams play what they have, and are dropped unless they are attached again."""
        self._orphans_end = self.mixed_samples + int(ORPHAN_S * self.rate_hz)
        for track in self._tracks.values():
            track.orphan()

    def _drop_orphans(self) -> None:
        if self._orphans_end is not None and self.mixed_samples >= self._orphans_end:
            self._orphans_end = None
            for key in [key for key, track in self._tracks.items() if track.is_orphan]:
                self.detach(key)

    def push(self, key: int, first_sample: int, samples: Samples, last: bool = False, t_ns: int = 0) -> None:
        """Queue samples [n]; the array is kept, not copied. `t_ns`: when their frames reached the daemon, 0 if unknown.

        Raises ValueError if samples are not the next ones.
        """
        if track := self._tracks.get(key):
            track.push(first_sample, samples, last, t_ns)

    def note_arrival(self, key: int, arrival: Arrival, sounds_ns: int) -> None:
        """Frames of a stream have reached the daemon; `sounds_ns`: when the next sample to be mixed sounds, by the same clock."""
        if track := self._tracks.get(key):
            track.note_arrival(arrival, sounds_ns)

    def pause(self, key: int) -> None:
        """Fade the stream out and hold its position."""
        if track := self._tracks.get(key):
            track.pause()

    def resume(self, key: int) -> None:
        """Continue a paused stream, faded in."""
        if track := self._tracks.get(key):
            track.resume()

    def gain(self, key: int, gain_db: float) -> None:
        """Move smoothly to a new gain."""
        if track := self._tracks.get(key):
            track.gain(factor(gain_db))

    def flush(self, key: int, fade_samples: int) -> None:
        """Fade the stream out within `fade_samples` of it and drop the rest; a Flushed event reports what was played."""
        if track := self._tracks.get(key):
            track.flush(fade_samples, self.mixed_samples)
            self._remove_done()

    def detach(self, key: int) -> None:
        """Fade the stream out quickly, without an event. The key is free at once."""
        if track := self._tracks.pop(key, None):
            track.detach(self.mixed_samples)
            self._detached.append(track)
            self._remove_done()

    def stop_output(self) -> None:
        """The device has stopped: streams hold their position; fades under way are over, flushes are done at once."""
        for track in [*self._tracks.values(), *self._detached]:
            track.stop_output(self.mixed_samples)
        self._remove_done()

    def miss(self, missing_samples: int) -> None:
        """The device was silent for about `missing_samples`: an underrun of every stream that plays, or played before."""
        for track in self._tracks.values():
            track.miss(missing_samples, self.mixed_samples)

    # ---------------------------------------------------------------- output

    def mix(self, samples: int) -> Samples:
        """The next `samples` of the mix, float32 [samples]: a view that the next call overwrites."""
        assert 0 < samples <= len(self._block), samples
        out = self._block[:samples]
        out.fill(0)
        sounding = list[Track]()
        for track in [*self._tracks.values(), *self._detached]:
            try:
                if track.add_to(out, self._scratch, self.mixed_samples):
                    sounding.append(track)
            except Exception as error:  # the edge between streams: the others are heard
                self._remove_broken(track, error)
        self._limit(out, sounding)
        self.mixed_samples += samples
        self._drop_orphans()
        self._remove_done()
        return out

    def _remove_broken(self, track: Track, error: Exception) -> None:
        if self._tracks.get(track.key) is track:
            del self._tracks[track.key]
            self._events.append(Broken(track.key, self.mixed_samples, error))
        self._detached = [one for one in self._detached if one is not track]

    def take_events(self) -> list[Event]:
        """The events since the last call, in order."""
        taken = self._events.copy()
        self._events.clear()
        return taken

    @property
    def keys(self) -> list[int]:
        """The streams that are attached."""
        return list(self._tracks)

    def _limit(self, out: Samples, sounding: Sequence[Track]) -> None:
        peak = max(float(out.max()), -float(out.min()))
        if peak <= KNEE:
            return
        if TOO_LOUD < peak < np.inf:
            self._tell_of_limit(sounding, peak)
        np.nan_to_num(out, copy=False, posinf=1.0, neginf=-1.0)  # NaN fails the comparison above
        loud = np.abs(out) > KNEE
        self.limited_samples += int(np.count_nonzero(loud))
        bent = KNEE + (1 - KNEE) * np.tanh((np.abs(out[loud]) - KNEE) / (1 - KNEE))
        out[loud] = np.copysign(bent, out[loud])

    def _tell_of_limit(self, sounding: Sequence[Track], peak: float) -> None:
        for track in sounding:
            if not track.is_told_of_limit:
                track.is_told_of_limit = True
                self._events.append(Limited(track.key, self.mixed_samples, track.sample, peak, len(sounding)))

    def _remove_done(self) -> None:
        for key in [key for key, track in self._tracks.items() if track.phase is Phase.DONE]:
            self._remember(self._tracks.pop(key))
        if self._detached:
            for track in (one for one in self._detached if one.phase is Phase.DONE and one.key not in self._tracks):
                self._remember(track)
            self._detached = [track for track in self._detached if track.phase is not Phase.DONE]

    def _remember(self, track: Track) -> None:
        self._played[track.key] = track.sample
        if len(self._played) > REMEMBERED:
            del self._played[next(iter(self._played))]


def factor(gain_db: float) -> float:
    """dB as a factor of amplitude."""
    return float(10 ** (gain_db / 20))
