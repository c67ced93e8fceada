"""The difference between the clock of a stream's client and that of the device, and the speed that makes up for it.

Rules: arithmetic only; times are passed in. How the speed is reached: variable_resampler.py.

A live client sends at the pace of its own clock, the device plays at the pace of its own. What one is ahead of the other
gathers in the queue, or drains it. The measure is the latency, from the arrival of frames to their sound: unlike the length
of the queue it does not depend on how the engine cuts chunks and when the device takes blocks. Its median over WINDOW_NS is
held at the value that it had at first, by a proportional-integral controller; the integral is the drift.

Only a stream that is paced by a clock can drift. One that is sent as fast as credit allows follows the device; one that comes
as fast as a model makes it follows nothing. So a stream counts as paced while its client had credit left each time that it
sent, and its latency moved by no more than PACED of the time over SETTLING windows. Whatever else moves the latency (a gap, a
pause, a part that was left out) restarts the measurement; what was learnt of the clock stays.
"""

import math
from collections import deque
from statistics import fmean, median, pstdev
from typing import NamedTuple

WINDOW_NS = 2_000_000_000
LONGEST_WINDOW_NS = 5_000_000_000
"""Frames that come more seldom than LEAST_ARRIVALS in this time are not paced."""
LEAST_ARRIVALS = 4
SETTLING = 4
"""Windows until the latency that is to be held is known."""
PACED = 0.002
LESS = 0.9
"""Of the uncertainty of one measure, if another one is to be better."""
LARGEST_ERROR_S = 0.05
"""A latency that is off by more has jumped: the new one is held."""
DEAD_S = 0.001
"""While the latency was never off by more, samples pass unchanged."""
LOST_S = 0.003
"""An error beyond this, and beyond the uncertainty, means that the clock has changed."""
MOST = 1e-3
"""The largest difference of two clocks, and so of the speed from 1."""
WIDEST, NARROWEST = 2 * math.pi * 0.01, 2 * math.pi * 0.0025
"""The natural frequency of the controller, in rad/s: wide for a clock that is not known yet or has changed."""
QUIET_S = 0.0006
"""With windows that are more uncertain than this, it becomes narrow."""
LEARNING = 4.0
"""Over the time for which a clock was followed: how wide it is at least."""


class Arrival(NamedTuple):
    """The newest message with frames: of the samples from `first` to `end`, at `t_ns`. `is_free`: more could have been sent."""

    t_ns: int
    first: int
    end: int
    is_free: bool = True


class Window(NamedTuple):
    """The median of latencies in s, and how uncertain it is."""

    t_s: float
    latency_s: float
    error_s: float


class Series:
    """The latencies of one sample of each message, the first or the one behind the last."""

    def __init__(self) -> None:
        self.windows: deque[Window] = deque(maxlen=SETTLING)
        self._latencies: list[float] = []

    def add(self, latency_s: float) -> None:
        """Another message."""
        self._latencies.append(latency_s)

    def close(self, t_s: float) -> None:
        """End the window."""
        taken, self._latencies = self._latencies, []
        self.windows.append(Window(t_s, median(taken), 1.25 * pstdev(taken) / math.sqrt(len(taken))))

    @property
    def latencies_s(self) -> list[float]:
        """The medians of the newest windows."""
        return [window.latency_s for window in self.windows]

    @property
    def error_s(self) -> float:
        """How uncertain one window is."""
        return fmean(window.error_s for window in self.windows)

    @property
    def is_paced(self) -> bool:
        """Whether it has stayed nearly the same."""
        latencies = self.latencies_s
        allowed = PACED * (self.windows[-1].t_s - self.windows[0].t_s)
        return len(latencies) == SETTLING and max(latencies) - min(latencies) <= allowed


class Drift:
    """The drift of one stream. Owner: its track."""

    def __init__(self) -> None:
        self.speed = 1.0
        """At which the stream is to be played, stream over device; 1.0 as long as nothing was to be made up for."""
        self.latency_s: float | None = None
        """The latency of late; None before it was measured."""
        self._drift, self._is_steering = 0.0, False
        self._held_s: float | None = None
        self._followed_s = 0.0  # for how long the error was what the uncertainty explains
        self._newest_ns = 0
        self.restart()

    @property
    def ppm(self) -> float | None:
        """By how much the client's clock is faster than the device's; None while the stream is not known to be paced."""
        return None if self._held_s is None else 1e6 * self._drift

    def restart(self) -> None:
        """The latency has changed, or will, for another reason: measure anew which one is to be held."""
        self._begin, self._end = Series(), Series()
        self._series, self._held_s = self._end, None
        self._opened_ns = self._count = 0
        self._is_free = True  # each message in this window
        self.speed = 1 + self._drift

    def go_on_from(self, before: "Drift") -> None:
        """The stream follows another one of its client without a pause."""
        self._drift, self._is_steering, self.speed = before._drift, before._is_steering, 1 + before._drift

    def arrived(self, arrival: Arrival, first_s: float, end_s: float) -> None:
        """Frames have arrived whose first sample sounds `first_s` later, and the one behind their last `end_s` later."""
        if arrival.t_ns <= self._newest_ns:
            return
        if self._opened_ns and arrival.t_ns - self._opened_ns > LONGEST_WINDOW_NS:
            self.restart()
        self._newest_ns, self._opened_ns = arrival.t_ns, self._opened_ns or arrival.t_ns
        self._count, self._is_free = self._count + 1, self._is_free and arrival.is_free
        self._begin.add(first_s)
        self._end.add(end_s)
        if arrival.t_ns - self._opened_ns >= WINDOW_NS and self._count >= LEAST_ARRIVALS:
            self._close(arrival.t_ns)

    def _close(self, t_ns: int) -> None:
        self._begin.close(t_ns / 1e9)
        self._end.close(t_ns / 1e9)
        took_s, self._opened_ns, self._count = (t_ns - self._opened_ns) / 1e9, t_ns, 0
        self.latency_s = latency_s = self._series.latencies_s[-1]
        if not self._is_free:
            self.restart()
        elif self._held_s is None:
            self._settle()
        elif abs(latency_s - self._held_s) > LARGEST_ERROR_S:
            self.restart()
        else:
            self._steer(self._held_s, took_s)

    def _settle(self) -> None:
        """Hold the latency if it has been nearly the same: that of the sample whose latency varies less.

        A client that sends what it has just made sends each last sample on time; one that sends ahead, each first one. With
        chunks of one length both vary alike, and the latency that is shown must not jump by that length.
        """
        self._series = self._begin if self._begin.error_s < LESS * self._end.error_s else self._end
        if self._series.is_paced:
            self._held_s = fmean(self._series.latencies_s)

    def _steer(self, held_s: float, took_s: float) -> None:
        latencies, uncertain_s = self._series.latencies_s, self._series.error_s
        error_s = latencies[-1] - held_s
        if not self._is_steering:
            self._is_steering = abs(fmean(latencies) - held_s) > max(DEAD_S, 3 * uncertain_s)
        if self._is_steering:
            self._followed_s = 0.0 if abs(error_s) > max(LOST_S, 4 * uncertain_s) else self._followed_s + took_s
            self._correct(error_s, took_s, self._omega(uncertain_s))

    def _omega(self, uncertain_s: float) -> float:
        learning = LEARNING / max(self._followed_s, WINDOW_NS / 1e9)
        steady = WIDEST * (QUIET_S / max(uncertain_s, QUIET_S)) ** 2
        return min(WIDEST, max(NARROWEST, learning, steady))

    def _correct(self, error_s: float, took_s: float, omega: float) -> None:
        """One step of the controller, critically damped."""
        wanted = self._drift + 2 * omega * error_s
        if abs(wanted) < MOST or wanted * error_s < 0:  # else the integral would wind up
            self._drift = min(MOST, max(-MOST, self._drift + omega**2 * error_s * took_s))
        self.speed = 1 + min(MOST, max(-MOST, self._drift + 2 * omega * error_s))
