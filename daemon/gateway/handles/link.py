"""The link to an engine on another machine: how long it takes there and back, how much that varies, and what its clock shows.

Rules: no socket; time is passed in. A probe is sent at t1 by the gateway's clock, read at t2 and answered at t3 by the
engine's, and its echo is read at t4: the four times of NTP (RFC 5905, section 8).

    round trip = (t4 - t1) - (t3 - t2)
    offset     = ((t2 - t1) + (t3 - t4)) / 2    what the engine's clock is ahead; wrong by half the round trip at most

Whatever delays a message makes its round trip longer, so the quickest probe of the last minute tells the offset best: the
clock filter of RFC 5905, section 10. Clocks drift meanwhile, so an older probe counts as wrong by DRIFT more for its age. A
probe that contradicts the best one tells that a clock has jumped (a machine was asleep): what came before it is forgotten.

An engine that computes does not read. It says how long a probe may have lain unread; that is not held against the link.
"""

import dataclasses
from collections import deque
from dataclasses import dataclass

from glowd.daemon import engine_link, ipc
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import LinkSnapshot

PROBES = 64
"""Of which the figures are: those of the last minute."""
FIRST_PROBES, FIRST_EVERY_NS, EVERY_NS = 8, 200_000_000, 1_000_000_000
DRIFT = 100e-6
"""By how much two clocks may drift apart, of the time: quartz crystals differ by some tens of parts per million."""
SLOWEST = 95
"""Percent of the probes: the slower ones are not counted into the jitter."""
MAX_CUSHION_MS = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one probe has shown, at `at_ns` of the gateway's clock. Of `trip_ns` it may have lain unread for `unread_ns`."""

    at_ns: int
    trip_ns: int
    unread_ns: int
    offset_ns: int

    def bound_ns(self, now_ns: int) -> int:
        """The most by which the offset is wrong now."""
        return self.trip_ns // 2 + int(DRIFT * abs(now_ns - self.at_ns))


def sample_of(echo: engine_link.Echo, now_ns: int) -> Sample | None:
    """What an echo that is read now has shown; None if its times contradict one another."""
    t1, t2, t3, t4 = echo.t_sent_ns, echo.t_read_ns, echo.t_echo_ns, now_ns
    trip_ns = (t4 - t1) - (t3 - t2)
    if not (t1 <= t4 and t2 <= t3 and trip_ns >= 0):
        return None
    return Sample(now_ns, trip_ns, echo.unread_ns, ((t2 - t1) + (t3 - t4)) // 2)


class Link:
    """The measurements of one connection. Owner: the gateway's only thread."""

    def __init__(self, version: int) -> None:
        """`version`: the one that both sides speak."""
        self.version = version
        self._samples = deque[Sample](maxlen=PROBES)
        self._best: Sample | None = None
        self._quickest_ns: int | None = None  # round trip
        self._passed_ns: int | None = None  # what the newest samples tell of the offset where there are no probes
        self._next_ns = self._probes = 0

    # -------------------------------------------------------------- measurements

    def probe(self, now_ns: int) -> engine_link.Probe | None:
        """The probe to send now, if it is time and the engine knows of probes."""
        if self.version < engine_link.PROBES_SINCE or now_ns < self._next_ns:
            return None
        self._next_ns = now_ns + (FIRST_EVERY_NS if self._probes < FIRST_PROBES else EVERY_NS)
        self._probes += 1
        return engine_link.Probe(now_ns)

    def echo(self, echo: engine_link.Echo, now_ns: int) -> None:
        """An echo has come."""
        if (sample := sample_of(echo, now_ns)) is None:
            return
        if self._best and abs(sample.offset_ns - self._best.offset_ns) > (
            sample.bound_ns(now_ns) + self._best.bound_ns(now_ns)
        ):
            self._samples.clear()
        self._samples.append(sample)
        self._best = min(self._samples, key=lambda one: one.bound_ns(now_ns))
        self._quickest_ns = min(sample.trip_ns for sample in self._samples)

    @property
    def trip_ms(self) -> float | None:
        """The quickest round trip; None if none was measured."""
        return None if self._quickest_ns is None else self._quickest_ns / 1e6

    @property
    def jitter_ms(self) -> float | None:
        """By how much longer nearly all round trips take at most; None if none was measured."""
        if self._quickest_ns is None:
            return None
        excess = sorted(max(0, sample.trip_ns - sample.unread_ns - self._quickest_ns) for sample in self._samples)
        return excess[min(len(excess) - 1, len(excess) * SLOWEST // 100)] / 1e6

    @property
    def distance_ms(self) -> float:
        """What the link adds to the latency of every chunk; 0 if it was not measured.

        Without the jitter, in which there is also how busy both machines are: a few slow probes must not outweigh the load.
        """
        return self.trip_ms or 0.0

    @property
    def cushion_ms(self) -> float:
        """How much more audio the device has to collect, so that it has some when a chunk comes late by the jitter."""
        return min(self.jitter_ms or 0.0, MAX_CUSHION_MS)

    @property
    def ahead_ns(self) -> int | None:
        """By how much the engine's clock is ahead of the gateway's; None if nothing tells."""
        return self._passed_ns if self._best is None else self._best.offset_ns

    def snapshot(self) -> LinkSnapshot:
        """For telemetry."""
        ahead_ns = self.ahead_ns
        return LinkSnapshot(
            version=self.version,
            trip_ms=None if self.trip_ms is None else round(self.trip_ms, 3),
            jitter_ms=None if self.jitter_ms is None else round(self.jitter_ms, 3),
            ahead_ms=None if ahead_ns is None else round(ahead_ns / 1e6, 3),
        )

    # --------------------------------------------------------------------- times

    def in_our_clock(self, message: Message, now_ns: int) -> Message:
        """A message of the engine, with its times as the gateway's clock would have shown them."""
        match message:
            case ipc.Pcm():
                return self._samples_in_our_clock(message, now_ns)
            case ipc.Load(stats=ipc.EngineLoad(degraded=degraded) as load) if (
                degraded and degraded.since_ns is not None
            ):
                ahead_ns = self.ahead_ns
                since_ns = None if ahead_ns is None else _within(0, degraded.since_ns - ahead_ns, now_ns)
                return ipc.Load(dataclasses.replace(load, degraded=dataclasses.replace(degraded, since_ns=since_ns)))
        return message

    def _samples_in_our_clock(self, pcm: ipc.Pcm, now_ns: int) -> ipc.Pcm:
        """Frames were sent before they were read, and samples read after they were made: no offset may contradict that.

        So the stages add up to the time that has passed here, and none is negative. Without probes, of an engine of
        version 1, what has passed and no stage took is shared equally between the two ways.
        """
        sent_ns = min(pcm.t_gateway_ns, now_ns)
        first_ns = pcm.t_engine_ns or pcm.t_start_ns
        most_ns, least_ns = first_ns - sent_ns, pcm.t_end_ns - now_ns
        self._passed_ns = (most_ns + least_ns) // 2 if pcm.t_gateway_ns else least_ns
        assert self.ahead_ns is not None
        ahead_ns = max(least_ns, min(most_ns, self.ahead_ns) if pcm.t_gateway_ns else self.ahead_ns)
        read_ns = _within(sent_ns, pcm.t_engine_ns - ahead_ns, now_ns) if pcm.t_engine_ns else 0
        start_ns = _within(read_ns, pcm.t_start_ns - ahead_ns, now_ns)
        # An engine of version 1 takes the time of an utterance's end from its own clock.
        due_ns = pcm.t_due_ns if pcm.t_due_ns <= now_ns else pcm.t_due_ns - ahead_ns
        return dataclasses.replace(
            pcm,
            t_gateway_ns=sent_ns,
            t_engine_ns=read_ns,
            t_start_ns=start_ns,
            t_end_ns=_within(start_ns, pcm.t_end_ns - ahead_ns, now_ns),
            t_due_ns=_within(0, due_ns, now_ns),
        )


def _within(low_ns: int, value_ns: int, high_ns: int) -> int:
    """A time that is not before the one, nor after the other."""
    return max(low_ns, min(value_ns, high_ns))
