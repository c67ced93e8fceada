"""Clients and a device whose clocks differ, in simulated time: a client sends at its pace, the device plays at its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from glowd.daemon.speaker.clock import DeviceClock
from glowd.daemon.speaker.drift import Arrival
from glowd.daemon.speaker.events import Event, Progress
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings

ENGINE_FRAMES = 4
"""The engine renders whole chunks only."""
DEVICE_LATENCY_S, REPORT_JITTER_S = 0.06, 0.002


def silence(first: int, end: int) -> Samples:
    return np.zeros(end - first, np.float32)


@dataclass
class PacedClient:
    """Sends chunks of `least` to `most` frames at the pace of a clock that is `ppm` fast.

    `is_ahead`: it sends a chunk when its first sample is due, else when its last one is. `ppm_at`: from then on (s) another
    clock. `late_s`: the most that a message takes. `jump`: (time, s): its clock is set forward.
    """

    key: int = 1
    ppm: float = 0.0
    least: int = 4
    most: int = 4
    late_s: float = 0.0
    is_ahead: bool = False
    ppm_at: tuple[float, float] | None = None
    jump: tuple[float, float] | None = None
    source: Callable[[int, int], Samples] = silence
    rate_hz: int = 4000
    hop: int = 48
    prefill_s: float = 0.25
    is_over: bool = False
    arrived: int = 0
    pushed: int = 0
    latencies_s: list[float] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def time_s(self, sample: float) -> float:
        """When a sample is due, by the true clock."""
        nominal_s, slow = sample / self.rate_hz, 1 + self.ppm * 1e-6
        time_s = nominal_s / slow
        if self.ppm_at and time_s > self.ppm_at[0]:
            played_s = self.ppm_at[0] * slow
            time_s = self.ppm_at[0] + (nominal_s - played_s) / (1 + self.ppm_at[1] * 1e-6)
        if self.jump and time_s > self.jump[0]:
            time_s -= self.jump[1]
        return time_s

    def end(self, mixer: Mixer) -> None:
        """Send nothing more."""
        mixer.push(self.key, self.pushed, silence(0, 0), last=True)
        self.is_over = True

    def messages(self, rng: np.random.Generator) -> Iterator[tuple[float, int, int]]:
        """(when it arrives, its first sample, the one behind its last), without end."""
        end, newest_s = 0, 0.0
        while True:
            first, end = end, end + int(rng.integers(self.least, self.most + 1)) * self.hop
            due_s = self.time_s(first if self.is_ahead else end)
            newest_s = max(newest_s, due_s + self.late_s * rng.random())
            yield newest_s, first, end


class Room:
    """A mixer that plays clients on a device that is `ppm` fast. One second of it is `rate_hz` samples of the device."""

    def __init__(
        self, clients: list[PacedClient], ppm: float = 0.0, rate_hz: int = 4000, block_s: float = 0.02
    ) -> None:
        self.clients, self.mixer, self.clock = clients, Mixer(rate_hz), DeviceClock(rate_hz, 0)
        self.rate_hz, self._true_hz, self._block = rate_hz, rate_hz * (1 + ppm * 1e-6), round(block_s * rate_hz)
        self._rng = np.random.default_rng(7)
        self.events: list[Event] = []
        self.heard: list[Samples] = []
        self.keeps_sound = False
        self._coming = {client.key: client.messages(self._rng) for client in clients}
        self._next = {key: next(messages) for key, messages in self._coming.items()}
        for client in clients:
            prefill = int(client.prefill_s * client.rate_hz)
            self.mixer.attach(client.key, TrackSettings(rate_hz=client.rate_hz, prefill=prefill))

    @property
    def now_s(self) -> float:
        """When the device takes the next block."""
        return self.mixer.mixed_samples / self._true_hz

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            for client in self.clients:
                self._receive(client)
            block = self.mixer.mix(self._block)
            if self.keeps_sound:
                self.heard.append(block.copy())
            sounds_s = self.now_s + DEVICE_LATENCY_S + REPORT_JITTER_S * self._rng.random()
            self.clock.update(self.mixer.mixed_samples, round(1e9 * sounds_s))
            self._take_events()

    def _receive(self, client: PacedClient) -> None:
        while not client.is_over and (message := self._next[client.key])[0] <= self.now_s:
            t_s, first, end = message
            client.arrived = end
            chunk = ENGINE_FRAMES * client.hop
            ready = end // chunk * chunk
            if ready > client.pushed:
                self.mixer.push(client.key, client.pushed, client.source(client.pushed, ready))
                client.pushed = ready
                sounds_ns = self.clock.ns(self.mixer.mixed_samples)
                self.mixer.note_arrival(client.key, Arrival(round(1e9 * t_s), first, end), sounds_ns)
            self._next[client.key] = next(self._coming[client.key])

    def _take_events(self) -> None:
        by_key = {client.key: client for client in self.clients}
        for event in self.mixer.take_events():
            if isinstance(event, Progress):
                client = by_key[event.key]
                client.progress.append(event)
                client.latencies_s.append(event.at / self._true_hz + DEVICE_LATENCY_S - client.time_s(event.sample))
            else:
                self.events.append(event)
