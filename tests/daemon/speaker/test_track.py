"""One stream of the mix, with all commands in any order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from glowd.daemon.speaker.catch_up import Policy
from glowd.daemon.speaker.events import Event, Finished, Flushed, Progress, Underrun
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.ramp import Ramp
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings
from tests.harness.signals import RATE, tone


@given(
    steps=st.integers(1, 500), sizes=st.lists(st.integers(1, 700), min_size=1, max_size=30), turn=st.integers(0, 500)
)
def test_ramp_is_the_same_in_any_pieces(steps: int, sizes: list[int], turn: int) -> None:
    def run(pieces: list[int]) -> Samples:
        ramp = Ramp(0.25)
        ramp.move_to(1.0, steps)
        first = [np.broadcast_to(ramp.take(n), n) for n in pieces if n]
        ramp.move_to(0.0, steps)
        return np.concatenate([*first, *[np.broadcast_to(ramp.take(n), n) for n in sizes]])

    whole, single = run([turn]), run([1] * turn)
    np.testing.assert_array_equal(whole, single)
    assert np.abs(np.diff(whole)).max(initial=0) <= np.pi / 2 / (steps + 1) + 1e-6


class AnyOrder(RuleBasedStateMachine):
    """One tone of any rate, and all commands in any order: it is played whole, in order, without a click."""

    @initialize(
        prefill=st.integers(0, 3000), rate_hz=st.sampled_from([16_000, RATE, 24_000]), policy=st.sampled_from(Policy)
    )
    def attach(self, prefill: int, rate_hz: int, policy: Policy) -> None:
        self.mixer, self.source = Mixer(RATE), tone(30_000)
        self.mixer.attach(1, TrackSettings(rate_hz=rate_hz, prefill=prefill, policy=policy))
        self.pushed, self.out = 0, [np.zeros(1, np.float32)]
        self.events: list[Event] = []

    @rule(samples=st.integers(1, 4000))
    def push(self, samples: int) -> None:
        piece = self.source[self.pushed : self.pushed + samples]
        if len(piece):
            self.mixer.push(1, self.pushed, piece, last=self.pushed + len(piece) == len(self.source))
            self.pushed += len(piece)

    @rule(block=st.integers(1, 1000), blocks=st.integers(1, 5))
    def mix(self, block: int, blocks: int) -> None:
        self.out += [self.mixer.mix(block).copy() for _ in range(blocks)]

    @rule()
    def pause(self) -> None:
        self.mixer.pause(1)

    @rule()
    def resume(self) -> None:
        self.mixer.resume(1)

    @rule(gain_db=st.floats(-20, 0))
    def gain(self, gain_db: float) -> None:
        self.mixer.gain(1, gain_db)

    @rule(fade=st.integers(100, 500))
    def flush(self, fade: int) -> None:
        self.mixer.flush(1, fade)

    @rule(missing=st.integers(0, 5000))
    def lose_device(self, missing: int) -> None:
        self.mixer.stop_output()
        self.out = [np.zeros(1, np.float32)]
        self.mixer.miss(missing)

    @invariant()
    def no_click(self) -> None:
        self.out = [np.concatenate(self.out)]
        steps = np.abs(np.diff(self.out[0]))
        assert steps.max(initial=0) < 0.03, f"a step of {steps.max():.3f} at {steps.argmax()}"
        self.out = [self.out[0][-1:]]

    @invariant()
    def order(self) -> None:
        fresh = self.mixer.take_events()
        self.events += fresh
        positions = [event.sample for event in self.events if isinstance(event, Progress)]
        assert positions == sorted(positions)
        assert all(event.missing >= 0 for event in fresh if isinstance(event, Underrun))

    def teardown(self) -> None:
        if not hasattr(self, "mixer"):
            return
        self.mixer.resume(1)
        self.push(len(self.source))
        self.mix(1000, 50)
        self.order()
        ends = [event for event in self.events if isinstance(event, Finished | Flushed)]
        assert len(ends) == 1
        if isinstance(ends[0], Finished):
            assert ends[0].samples == len(self.source)
        assert self.mixer.keys == []


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase
