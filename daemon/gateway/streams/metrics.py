"""What is measured of one stream: how long its audio takes from stage to stage, and how often the device had none.

Rules: no socket, no clock. A figure that was not measured is None, never 0. PROTOCOL.md explains the figures.
"""

from array import array
from collections import deque

import numpy as np

from glowd.daemon import ipc
from glowd.daemon.gateway.streams.totals import Durations, VoiceCounts
from glowd.daemon.wire.telemetry import STAGES, Stages, StageTimes, Underruns

WINDOW = 512
"""How many of the newest chunks the percentiles are of."""
FOREIGN_CLOCK_NS = 60_000_000_000
"""Frames that seem to have travelled for longer, or back in time, were stamped by another machine's clock."""


def stamps_of(pcm: ipc.Pcm, now_ns: int) -> dict[str, int]:
    """When samples passed each stage, for the client. A time that is not known is left out."""
    stamps = {
        "client": pcm.t_client_ns,
        "gateway_in": pcm.t_gateway_ns,
        "engine_in": pcm.t_engine_ns,
        "net_start": pcm.t_start_ns,
        "net_end": pcm.t_end_ns,
        "gateway_out": now_ns,
    }
    return stamps if all(stamps.values()) else {name: at for name, at in stamps.items() if at}


class Window:
    """The newest WINDOW durations, in an array: a snapshot must be quick, because the gateway's loop waits for it."""

    def __init__(self, counted: Durations | None = None) -> None:
        """`counted`: those of all streams, to which each is added."""
        self._ring, self._count = array("q", bytes(8 * WINDOW)), 0
        self._add = (counted or Durations()).add

    def append(self, duration_ns: int) -> None:
        """Add one; the oldest is dropped."""
        self._ring[self._count % WINDOW] = duration_ns
        self._count += 1
        self._add(duration_ns)

    def spread(self) -> StageTimes | None:
        """Percentiles (nearest rank) and mean; None if nothing was measured."""
        held = min(self._count, WINDOW)
        if not held:
            return None
        ordered = np.sort(np.frombuffer(self._ring, np.int64)[:held])
        rank = {q: float(ordered[min(held - 1, held * q // 100)]) / 1e6 for q in (50, 99)}
        return StageTimes(p50_ms=rank[50], p99_ms=rank[99], mean_ms=int(ordered.sum()) / held / 1e6, count=held)


class Meter:
    """The figures of one stream. Owner: its session."""

    def __init__(self, rate_hz: int, counts: VoiceCounts | None = None) -> None:
        """`counts`: those of its voice, to which it adds."""
        self.rate_hz, self._counts = rate_hz, counts or VoiceCounts()
        self._ttfa_ns: deque[int] = deque(maxlen=WINDOW)
        self._underruns = {"client": 0, "engine": 0, "device": 0}
        self._missing_samples = self._behind_samples = self._skipped_samples = 0
        self.latency_ms: float | None = None
        """On the device, from the arrival of frames to their sound."""
        self.drift_ppm: float | None = None
        """By how much the client's clock is faster than the device's; None: no clock paces the stream."""
        self._stages = {stage: Window(self._counts.stages[stage]) for stage in STAGES}
        self._network_ns = self._samples = self._calls = self._batch = 0
        self._first_frames_ns: int | None = None
        self._has_audio = False
        self._offered: deque[tuple[int, int]] = deque(maxlen=WINDOW)

    def begin(self) -> None:
        """An utterance starts."""
        self._first_frames_ns, self._has_audio = None, False
        self._behind_samples = self._skipped_samples = 0
        self.latency_ms = self.drift_ppm = None
        self._offered.clear()

    def frames(self, now_ns: int) -> None:
        """Frames of the client arrived."""
        if self._first_frames_ns is None:
            self._first_frames_ns = now_ns

    def rendered(self, pcm: ipc.Pcm, fresh_samples: int, now_ns: int) -> None:
        """Samples of the engine are given to the sinks."""
        if not fresh_samples or not pcm.t_gateway_ns:
            return
        if not self._has_audio and self._first_frames_ns is not None:
            self._has_audio = True
            self._ttfa_ns.append(now_ns - self._first_frames_ns)
            self._counts.first_audio.add(now_ns - self._first_frames_ns)
        self._network_ns += (pcm.t_end_ns - pcm.t_start_ns) // max(1, pcm.batch)
        self._samples += fresh_samples
        self._counts.audio_s += fresh_samples / self.rate_hz
        self._calls, self._batch = self._calls + 1, self._batch + pcm.batch
        if pcm.t_client_ns and 0 <= (travelled_ns := pcm.t_gateway_ns - pcm.t_client_ns) < FOREIGN_CLOCK_NS:
            self._stages["client"].append(travelled_ns)
        self._stages["transport"].append(pcm.t_engine_ns - pcm.t_gateway_ns)
        self._stages["wait"].append(pcm.t_start_ns - pcm.t_engine_ns)
        self._stages["network"].append(pcm.t_end_ns - pcm.t_start_ns)
        self._stages["return"].append(now_ns - pcm.t_end_ns)
        self._offered.append((pcm.first_sample, now_ns))

    def position(self, position: ipc.Position) -> None:
        """The device reports when a sample sounds; this gives the time of the chunks before it."""
        while self._offered and self._offered[0][0] <= position.samples:
            first_sample, offered_ns = self._offered.popleft()
            sounds_ns = position.t_dac_ns - (position.samples - first_sample) * 1_000_000_000 // self.rate_hz
            self._stages["device"].append(sounds_ns - offered_ns)
        self._behind_samples, self._skipped_samples = position.behind_samples, position.skipped_samples
        self.latency_ms = position.latency_ns / 1e6 if position.latency_ns else None
        self.drift_ppm = position.drift_ppm if position.is_paced else None

    def underrun(self, cause: str, missing_samples: int) -> None:
        """The listener heard a gap because `cause` (client or engine) was late, or the device gone."""
        self._underruns[cause] += 1
        self._missing_samples += missing_samples
        self._counts.starve(cause, missing_samples / self.rate_hz)

    def ended(self, how: str) -> None:
        """An utterance has ended: played, flushed, failed, or closed with its stream."""
        self._counts.utterances[how] += 1

    @property
    def behind_ms(self) -> float:
        """How much later than before a gap the stream is heard, as far as that is to be caught up."""
        return 1000 * self._behind_samples / self.rate_hz

    @property
    def skipped_ms(self) -> float:
        """By how much the running generation was shortened to catch up."""
        return 1000 * self._skipped_samples / self.rate_hz

    @property
    def ttfa_ms(self) -> float | None:
        """Of the newest generation that has audio: from its first frames to its first samples."""
        return self._ttfa_ns[-1] / 1e6 if self._ttfa_ns else None

    @property
    def rtf(self) -> float | None:
        """Time in the network over the time that the audio lasts."""
        return self._network_ns / 1e9 / (self._samples / self.rate_hz) if self._samples else None

    @property
    def batch(self) -> float | None:
        """The mean number of streams in a call to the network."""
        return self._batch / self._calls if self._calls else None

    @property
    def stages(self) -> Stages:
        """The times of the stages that were measured."""
        times = {name: spread for name, window in self._stages.items() if (spread := window.spread())}
        means = [spread.mean_ms for spread in times.values() if spread.mean_ms is not None]
        return Stages(times=times, mean_sum_ms=sum(means) if means else None)

    @property
    def underruns(self) -> Underruns:
        """How many gaps the listener heard, and by whose fault."""
        return Underruns(**self._underruns, missing_samples=self._missing_samples)
