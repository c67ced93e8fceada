"""A stream that a gap has delayed: when it is shortened, and by how much."""

import numpy as np
import pytest

from glowd.daemon.speaker.catch_up import CatchUp, Policy
from glowd.daemon.speaker.events import Finished, Progress, Underrun
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings
from tests.harness.signals import RATE, vowel

CHUNK, PREFILL = 1024, 2205
CHUNK_NS = CHUNK * 1_000_000_000 // RATE


class LiveStream:
    """A client that speaks at `pace` times real time into a mixer whose device can stand still. Time is simulated."""

    def __init__(self, source: Samples, pace: float = 1.0, settings: TrackSettings | None = None) -> None:
        self.mixer, self.source = Mixer(RATE), source
        self.mixer.attach(1, settings or TrackSettings(prefill=PREFILL))
        self.pushed, self._pace, self._due = 0, pace, 0.0
        self.events: list = []
        self.now_ns = 1

    def run(self, seconds: float, device: bool = True, client: bool = True, owes: bool = True) -> None:
        """`client` False: it sends nothing; with `owes` it sends that afterwards at once."""
        for _ in range(round(seconds * RATE / CHUNK)):
            self.now_ns += CHUNK_NS
            self._due += self._pace if client or owes else 0
            while client and self._due >= 1 and self.pushed < len(self.source):
                self._due -= 1
                chunk = self.source[self.pushed : self.pushed + CHUNK]
                last = self.pushed + CHUNK >= len(self.source)
                self.mixer.push(1, self.pushed, chunk, last, self.now_ns)
                self.pushed += len(chunk)
            if device:
                self.mixer.mix(CHUNK)
            self.events += self.mixer.take_events()

    def stall(self, seconds: float) -> None:
        """The device stands still; that is noticed after 0.35 s."""
        self.run(0.35, device=False)
        self.mixer.stop_output()
        self.run(seconds - 0.35, device=False)
        self.mixer.miss(int(seconds * RATE))

    @property
    def lead_s(self) -> float:
        """How much later than it was sent the newest sample will be heard."""
        last = [event for event in self.events if isinstance(event, Progress)][-1]
        return (self.pushed - last.sample - (self.mixer.mixed_samples - last.at)) / RATE

    @property
    def skipped_s(self) -> float:
        return [event for event in self.events if isinstance(event, Progress)][-1].skipped / RATE


def speech(seconds: float) -> Samples:
    """Vowels, without a pause."""
    return vowel(seconds, 140)


def test_live_stream_heals_after_a_stall_of_the_device() -> None:
    live = LiveStream(speech(60))
    live.run(6)
    before_s = live.lead_s
    live.stall(1.2)
    live.run(1)
    assert live.lead_s > before_s + 1.0
    live.run(29)
    assert live.lead_s == pytest.approx(before_s, abs=0.1)
    live.run(10)
    assert live.lead_s == pytest.approx(before_s, abs=0.1) and live.skipped_s < 1.25
    live.run(60)
    assert [event.samples for event in live.events if isinstance(event, Finished)] == [len(live.source)]


def test_pause_of_the_speaker_is_used_to_heal_at_once() -> None:
    live = LiveStream(np.concatenate([speech(8), np.zeros(2 * RATE, np.float32), speech(20)]))
    live.run(6)
    before_s = live.lead_s
    live.stall(1.2)
    live.run(6)
    assert live.lead_s == pytest.approx(before_s, abs=0.1)


def test_live_stream_heals_after_the_speaker_was_killed() -> None:
    """The next speaker gets at once what the first one did not play, with the times at which its frames had arrived."""
    live, first = LiveStream(speech(60)), 4 * RATE
    live.mixer = Mixer(RATE)
    live.mixer.attach(1, TrackSettings(prefill=PREFILL, first_sample=first, missing=2 * RATE))
    live.pushed = first
    for _ in range(2 * RATE // CHUNK):
        live.now_ns += CHUNK_NS
        live.mixer.push(1, live.pushed, live.source[live.pushed : live.pushed + CHUNK], False, live.now_ns)
        live.pushed += CHUNK
    live.run(1)
    assert live.lead_s > 1.5
    live.run(45)
    assert live.lead_s == pytest.approx(PREFILL / RATE, abs=0.1)


@pytest.mark.parametrize(
    ("pace", "settings"),
    [
        (1.0, TrackSettings(prefill=PREFILL, policy=Policy.NEVER)),
        (3.0, TrackSettings(prefill=PREFILL)),
    ],
    ids=["never", "not paced"],
)
def test_stream_that_keeps_every_sample_is_not_shortened(pace: float, settings: TrackSettings) -> None:
    live = LiveStream(speech(20), pace, settings)
    live.run(3)
    live.stall(1.2)
    live.run(30)
    assert live.skipped_s == 0
    assert [event.samples for event in live.events if isinstance(event, Finished)] == [len(live.source)]


def test_live_policy_shortens_a_stream_that_is_not_paced() -> None:
    live = LiveStream(speech(20), 1.5, TrackSettings(prefill=PREFILL, policy=Policy.LIVE))
    live.run(3)
    live.stall(1.2)
    live.run(12)
    assert live.skipped_s > 0.4


def test_client_that_pauses_leaves_nothing_to_catch_up() -> None:
    live = LiveStream(speech(30))
    live.run(5)
    live.run(0.8, client=False, owes=False)
    live.run(10)
    assert any(isinstance(event, Underrun) for event in live.events)
    assert live.skipped_s < 0.05 and live.lead_s >= PREFILL / RATE - 0.05


def test_client_that_bursts_after_a_pause_is_heard_in_time_again() -> None:
    live = LiveStream(speech(40))
    live.run(5)
    before_s = live.lead_s
    live.run(1.0, client=False)
    live.run(30)  # what it owes comes at once
    assert live.lead_s == pytest.approx(before_s, abs=0.1) and 0.5 < live.skipped_s <= 1.0


def test_max_lead_bounds_the_lead_without_a_gap() -> None:
    live = LiveStream(speech(40), 1.02, TrackSettings(prefill=PREFILL, max_lead=RATE // 4))
    live.run(35)
    assert live.lead_s == pytest.approx(0.25, abs=0.06)


def test_lead_is_never_below_the_prefill() -> None:
    catch_up = CatchUp(RATE, Policy.LIVE, least_lead=5000, max_lead=1000)
    catch_up.gap(10**6)
    assert catch_up.excess(5000) == 0 and catch_up.excess(5400) == 400
