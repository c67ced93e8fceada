"""A client of a simulation: it speaks at the pace of speech, and listens to what comes back.

Rules: no socket. It sends no more than it has credit for. Its listener collects audio before it plays, and every sample that is
not there when it should sound is an underrun; the stage that took longest beyond its usual time is blamed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np

from glowd.daemon import wire
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.placement.registry import Stream
from glowd.daemon.wire.fields import Message
from tests.bench.simulation.fleet import as_ns
from tests.bench.simulation.inputs import CHUNK_FRAMES, HOP, LinkFigures
from tests.bench.simulation.link import Link

Later = Callable[[float, Callable[[float], None]], None]
CHUNK_S = CHUNK_FRAMES * HOP / 22_050
MEL = np.full((CHUNK_FRAMES, 80), -5.0, np.float32)


class Listener:
    """The playback of one utterance."""

    def __init__(self, prefill_s: float, rate_hz: int = 22_050) -> None:
        self.prefill_s, self.rate_hz, self.started_s = prefill_s, rate_hz, -1.0
        self.first_s = -1.0

    def take(self, message: wire.Audio, now_s: float) -> float:
        """Samples arrive; returns for how long they were missing."""
        if self.first_s < 0:
            self.first_s = now_s
        have_s = (message.first_sample + message.samples) / self.rate_hz
        if self.started_s < 0:
            if have_s >= self.prefill_s or message.last:
                self.started_s = now_s
            return 0.0
        missing_s = now_s - (self.started_s + message.first_sample / self.rate_hz)
        if missing_s <= 0 or not message.samples:
            return 0.0
        self.started_s += missing_s
        return missing_s


class Tally:
    """What all talkers of a window saw."""

    def __init__(self) -> None:
        self.underruns, self.missing_s = Counter[str](), defaultdict[str, float](float)
        self.first_audio_s, self.speech_s, self.chunk_s = list[float](), 0.0, list[float]()
        self.utterances = self.failed = 0


class Talker(ClientConnection):
    """One client with one stream."""

    def __init__(
        self, name: str, rng: np.random.Generator, links: LinkFigures, later: Later, tally: Tally,
        to_gateway: Callable[["Talker", Message, float], None], clock_s: Callable[[], float],
        prefill_s: float = 0.1, utterance_s: float = 6.0, pause_s: float = 6.0,
    ) -> None:  # fmt: skip
        super().__init__(name.encode(), name, as_ns(0.0), lambda identity, parts: True)
        self._rng, self._later, self.tally, self._to_gateway, self._clock_s = rng, later, tally, to_gateway, clock_s
        self._up, self._down = Link(links, rng), Link(links, rng)
        self._prefill_s, self._utterance_s, self._pause_s = prefill_s, utterance_s, pause_s
        self._usual_up_s = self._usual_down_s = (links.base_ms + links.jitter_ms) / 1000
        self.stream: Stream | None = None
        self._expected_samples = 0
        self._listener, self._generation, self._is_ended = Listener(prefill_s), -1, True
        self._granted = dict[int, int]()
        """Frames, by utterance."""

    # ------------------------------------------------------------------- it speaks

    def begin(self, now_s: float) -> None:
        """The next utterance begins. A stream must have been opened."""
        assert self.stream is not None
        if not self._granted:  # of the first utterance `opened` says it; then it comes as credit
            self._granted[0] = self.stream.session.state.utterance.granted_frames
        self._generation += 1
        self._chunks = max(4, round(self._rng.exponential(self._utterance_s) / CHUNK_S))
        self._began_s, self._sent, self._is_ended = now_s, 0, False
        self._listener = Listener(self._prefill_s)
        self._pump(now_s)

    def _pump(self, now_s: float) -> None:
        """Send the chunks that are due and allowed."""
        while not self._is_ended and now_s >= self._due_s - 1e-9 and self._may_send:
            self._send_chunk(now_s)
        if not self._is_ended and now_s < self._due_s - 1e-9:
            generation = self._generation
            self._later(self._due_s, lambda at_s: self._pump(at_s) if generation == self._generation else None)

    @property
    def _due_s(self) -> float:
        """When the next chunk has been made."""
        return self._began_s + self._sent * CHUNK_S

    @property
    def _may_send(self) -> bool:
        return self._granted.get(self._generation, 0) >= CHUNK_FRAMES * (self._sent + 1)

    def _send_chunk(self, now_s: float) -> None:
        first = CHUNK_FRAMES * self._sent
        self._to(wire.mel_message(self.name, self._generation, self._sent, first, MEL, t_client_ns=as_ns(now_s)), now_s)
        self._sent += 1
        self.tally.speech_s += CHUNK_S
        if self._sent == self._chunks:
            self._is_ended = True
            self._to(wire.End(self.name, self._generation, CHUNK_FRAMES * self._sent), now_s)
            self._expected_samples = CHUNK_FRAMES * self._sent * HOP

    def _to(self, message: Message, now_s: float) -> None:
        self._later(self._up.arrival_s(now_s), lambda at_s: self._to_gateway(self, message, at_s))

    # ------------------------------------------------------------------- it listens

    def send(self, message: Message) -> None:
        """See ClientConnection: the gateway sends, and nothing is encoded."""
        self._later(self._down.arrival_s(self._clock_s()), lambda at_s: self._received(message, at_s))

    def try_send(self, message: Message) -> bool:
        """See ClientConnection."""
        self.send(message)
        return True

    def _received(self, message: Message, now_s: float) -> None:
        match message:
            case wire.Audio():
                self._hear(message, now_s)
            case wire.Credit():
                self._granted[message.generation] = self._granted.get(message.generation, 0) + message.frames
                if not self._is_ended:
                    self._pump(now_s)
            case wire.Played() | wire.Error(fatal=True):
                self._next(message, now_s)
            case wire.Error():
                raise AssertionError(f"the client of {self.name} was refused something: {message.text}")

    def _hear(self, message: wire.Audio, now_s: float) -> None:
        stamps = message.stamps
        if self._listener.first_s < 0:
            self.tally.first_audio_s.append(now_s - self._began_s)
        if "gateway_in" in stamps:
            self.tally.chunk_s.append((stamps["gateway_out"] - stamps["gateway_in"]) / 1e9)
        if missing_s := self._listener.take(message, now_s):
            stage = self._slowest(stamps, now_s)
            self.tally.underruns[stage] += 1
            self.tally.missing_s[stage] += missing_s

    def _slowest(self, stamps: dict[str, int], now_s: float) -> str:
        """The stage that took longest beyond what it usually takes."""
        if "net_end" not in stamps:
            return "link"
        took: dict[str, float] = {
            "link": max(
                stamps["gateway_in"] - stamps["client"] - 1e9 * self._usual_up_s,
                as_ns(now_s) - stamps["gateway_out"] - 1e9 * self._usual_down_s,
            ),
            "lost engine": stamps["engine_in"] - stamps["gateway_in"],
            "engine": stamps["net_end"] - stamps["engine_in"],
            "gateway": stamps["gateway_out"] - stamps["net_end"],
        }
        return max(took, key=lambda stage: took[stage])

    def _next(self, message: Message, now_s: float) -> None:
        self.tally.utterances += 1
        if isinstance(message, wire.Played):
            assert message.total_samples == self._expected_samples, f"{self.name} lost samples: {message}"
        else:
            self.tally.failed += 1
        self._is_ended = True
        pause_s = self._rng.exponential(self._pause_s) if self._pause_s else 0.0
        self._later(now_s + pause_s, self.begin)
