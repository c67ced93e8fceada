"""The link to an engine of another machine, on simulated clocks and ways: what is measured of it, and times that are moved."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import engine_link, ipc
from glowd.daemon.gateway.handles.link import MAX_CUSHION_MS, PROBES, Link
from glowd.daemon.gateway.streams.metrics import Meter
from glowd.daemon.wire.telemetry import STAGES, Degradation

MS, S = 1_000_000, 1_000_000_000
HOUR = 3600 * S
Delay = Callable[[], float]
"""The ms that the next message takes."""


def steady(ms: float) -> Delay:
    return lambda: ms


def jittery(least_ms: float, mean_ms: float, seed: int = 1) -> Delay:
    """At least so long, and exponentially longer."""
    dice = random.Random(seed)
    return lambda: least_ms + dice.expovariate(1 / mean_ms)


@dataclass
class Way:
    """A gateway and an engine whose clock is `ahead_ns` ahead, and runs faster by `ppm`; and the ways between them."""

    there: Delay
    back: Delay
    ahead_ns: int = 0
    ppm: float = 0.0
    busy_ms: Delay = field(default_factory=lambda: steady(0))
    """How long the engine computes before it reads a probe."""
    now_ns: int = 5 * S
    link: Link = field(default_factory=lambda: Link(engine_link.VERSION))

    def engine_ns(self, at_ns: float) -> int:
        """The engine's clock at a time of the gateway's."""
        return int(at_ns + self.ahead_ns + self.ppm * 1e-6 * at_ns)

    def probe(self) -> None:
        """One probe, there and back, when it is due."""
        while (probe := self.link.probe(self.now_ns)) is None:
            self.now_ns += 20 * MS
        busy_ns = self.busy_ms() * MS
        read_ns = self.now_ns + self.there() * MS + busy_ns
        echo_ns = read_ns + 0.02 * MS
        self.now_ns = int(echo_ns + self.back() * MS)
        times = probe.t_sent_ns, self.engine_ns(read_ns), self.engine_ns(echo_ns)
        self.link.echo(engine_link.Echo(*times, unread_ns=int(busy_ns)), self.now_ns)

    def probes(self, count: int = PROBES) -> "Way":
        for _ in range(count):
            self.probe()
        return self

    def wrong_ms(self) -> float:
        """By how much the offset is wrong now."""
        assert self.link.ahead_ns is not None
        return (self.link.ahead_ns - (self.engine_ns(self.now_ns) - self.now_ns)) / MS


@pytest.mark.parametrize("ahead_ns", [0, 3 * HOUR, -3 * HOUR])
def test_offset_of_hours_is_found_by_the_quickest_probes(ahead_ns: int) -> None:
    way = Way(jittery(2, 8), jittery(2, 8, 2), ahead_ns + 4 * HOUR).probes()
    assert abs(way.wrong_ms()) < 1, "the ways take 10 ms on average"


def test_asymmetric_way_is_wrong_by_half_the_difference() -> None:
    way = Way(steady(30), steady(10), 7 * HOUR).probes()
    assert way.wrong_ms() == pytest.approx(10, abs=0.1)
    assert way.link.trip_ms == pytest.approx(40, abs=0.1) and way.link.jitter_ms == pytest.approx(0, abs=0.01)


def test_clocks_that_drift_are_followed() -> None:
    way = Way(jittery(1, 2), jittery(1, 2, 2), HOUR, ppm=50)
    wrong = [abs(way.probes(1).wrong_ms()) for _ in range(600)]
    assert max(wrong[PROBES:]) < 5 and np.mean(wrong[PROBES:]) < 1.5, "in ten minutes they drift by 30 ms"


def test_clock_that_jumps_is_noticed_by_the_next_probe() -> None:
    way = Way(steady(2), steady(2), HOUR).probes()
    way.ahead_ns -= 10 * S
    assert abs(way.probes(1).wrong_ms()) < 0.1


def test_first_figures_are_there_within_two_seconds() -> None:
    way = Way(steady(5), steady(5))
    began_ns = way.now_ns
    way.probes(8)
    assert way.now_ns - began_ns < 2 * S and way.link.trip_ms == pytest.approx(10)


def test_jitter_is_that_of_the_slower_probes() -> None:
    calm, uneasy = (Way(jittery(5, mean), steady(5)).probes().link for mean in (0.1, 20))
    assert calm.trip_ms == pytest.approx(10, abs=0.5) and calm.jitter_ms is not None and calm.jitter_ms < 0.5
    assert uneasy.trip_ms == pytest.approx(10, abs=2) and uneasy.jitter_ms is not None and 35 < uneasy.jitter_ms < 90
    assert (uneasy.distance_ms, uneasy.cushion_ms) == (uneasy.trip_ms, uneasy.jitter_ms)


def test_only_frequent_loss_makes_a_cushion_and_a_bounded_one() -> None:
    def lossy(every: int) -> Iterator[float]:
        while True:
            yield from [5.0] * (every - 1) + [1000.0]

    rare, often = (Way(iter(lossy(every)).__next__, steady(5)).probes().link for every in (32, 8))
    assert rare.cushion_ms == 0 and often.cushion_ms == MAX_CUSHION_MS < (often.jitter_ms or 0)


def late_share(way: Way, cushion_ms: float) -> float:
    """Of a minute of chunks that come by this way, in order: those that a device has to wait for.

    It begins `cushion_ms` after the first one has come.
    """
    came_ms, first_ms, late, chunk_ms = 0.0, 0.0, 0, 46.44
    for number in range(1300):
        came_ms = max(came_ms, number * chunk_ms + way.there() + way.back())
        first_ms = first_ms or came_ms
        late += came_ms > first_ms + cushion_ms + number * chunk_ms
    return late / 1300


def test_cushion_that_was_measured_covers_the_jitter() -> None:
    way = Way(jittery(5, 20), jittery(5, 5, 2)).probes()
    with_cushion, without = (late_share(way, cushion_ms) for cushion_ms in (way.link.cushion_ms, 0.0))
    assert with_cushion < 0.05 < 0.2 < without


def test_engine_that_computes_is_not_held_against_the_link() -> None:
    busy = random.Random(3)
    way = Way(steady(5), steady(5), HOUR, busy_ms=lambda: busy.choice([0.0, 4.0, 9.0])).probes()
    assert way.link.trip_ms == pytest.approx(10, abs=0.1) and way.link.jitter_ms == pytest.approx(0, abs=0.1)
    assert abs(way.wrong_ms()) < 0.1


@pytest.mark.parametrize("times", [(9 * S, 1, 2), (1 * S, 2, 1), (5 * S, 0, 2**60)])
def test_echo_that_cannot_be_is_ignored(times: tuple[int, int, int]) -> None:
    link = Link(engine_link.VERSION)
    link.echo(engine_link.Echo(*times), 6 * S)
    assert link.trip_ms is None and link.ahead_ns is None and link.distance_ms == link.cushion_ms == 0


def test_engine_of_version_1_gets_no_probe() -> None:
    link = Link(1)
    assert link.probe(S) is link.probe(100 * S) is None


def chunk(way: Way, wait_ms: float = 3, network_ms: float = 8) -> ipc.Pcm:
    """Samples of frames that are sent now; they have arrived when this returns."""
    sent_ns = way.now_ns
    read_ns = sent_ns + way.there() * MS
    start_ns = read_ns + wait_ms * MS
    end_ns = start_ns + network_ms * MS
    way.now_ns = int(end_ns + way.back() * MS)
    engine = [way.engine_ns(at_ns) for at_ns in (read_ns, start_ns, end_ns)]
    return ipc.Pcm(
        1, 0, 256, t_client_ns=sent_ns - 2 * MS, t_gateway_ns=sent_ns, t_engine_ns=engine[0], t_due_ns=sent_ns,
        t_start_ns=engine[1], t_end_ns=engine[2], batch=1, audio=np.zeros(256, np.float32),
    )  # fmt: skip


def moved(way: Way, pcm: ipc.Pcm) -> ipc.Pcm:
    found = way.link.in_our_clock(pcm, way.now_ns)
    assert isinstance(found, ipc.Pcm)
    return found


def stages(way: Way, pcm: ipc.Pcm) -> dict[str, float]:
    """What the daemon shows of a stream whose only chunk this is."""
    meter = Meter(22_050)
    meter.rendered(moved(way, pcm), 256, way.now_ns)
    return {name: times.mean_ms or 0.0 for name, times in meter.stages.times.items()}


@pytest.mark.parametrize("ahead_ns", [3 * HOUR, -2 * HOUR])
def test_stages_are_true_whatever_the_engines_clock_shows(ahead_ns: int) -> None:
    way = Way(steady(6), steady(6), ahead_ns + 3 * HOUR).probes()
    assert stages(way, chunk(way)) == pytest.approx(
        {"client": 2, "transport": 6, "wait": 3, "network": 8, "return": 6}, abs=0.05
    )


@pytest.mark.parametrize("version", [1, engine_link.VERSION])
def test_stages_add_up_and_none_is_negative(version: int) -> None:
    """Also where the ways differ by more than the offset's error, and of an engine that is not probed."""
    way = Way(jittery(25, 10), jittery(1, 1, 2), -2 * S, link=Link(version))
    if version > 1:
        way.probes()
    for _ in range(50):
        sent_ns = way.now_ns
        found = stages(way, chunk(way))
        assert set(found) == set(STAGES) - {"device"} and min(found.values()) >= 0
        assert sum(found.values()) == pytest.approx((way.now_ns - sent_ns) / MS + 2, abs=1e-3)
        assert found["network"] == pytest.approx(8, abs=1e-3) and found["wait"] == pytest.approx(3, abs=1e-3)


def test_way_that_is_not_probed_is_shared_by_both_directions() -> None:
    way = Way(steady(6), steady(2), 5 * HOUR, link=Link(1))
    found = stages(way, chunk(way))
    assert found["transport"] == found["return"] == pytest.approx(4, abs=1e-3)


def test_times_of_gateway_and_client_come_back_unchanged() -> None:
    way = Way(steady(6), steady(6), 5 * HOUR).probes()
    pcm = chunk(way)
    found = moved(way, pcm)
    assert (found.t_client_ns, found.t_gateway_ns, found.t_due_ns) == (pcm.t_client_ns, pcm.t_gateway_ns, pcm.t_due_ns)
    np.testing.assert_array_equal(found.audio, pcm.audio)


def test_end_by_the_clock_of_an_old_engine_is_moved() -> None:
    """Version 1 says of the last chunk that it was due when its end arrived, by the engine's clock."""
    way = Way(steady(6), steady(6), 5 * HOUR, link=Link(1))
    pcm = chunk(way)
    object.__setattr__(pcm, "t_due_ns", pcm.t_engine_ns)
    assert moved(way, pcm).t_due_ns == pytest.approx(pcm.t_gateway_ns + 6 * MS, abs=MS)


TIMES = st.sampled_from([0, 1, 4 * S, 5 * S, 2**62, 2**63 - 1]) | st.integers(0, 2**63 - 1)


@given(st.tuples(*[TIMES] * 5), st.booleans())
def test_nonsense_of_an_engine_stays_within_the_time_that_passed(times: tuple[int, ...], is_probed: bool) -> None:
    way = Way(steady(6), steady(6))
    if is_probed:
        way.probes(8)
    gateway_ns, engine_ns, due_ns, start_ns, end_ns = times
    found = moved(
        way,
        ipc.Pcm(
            1, 0, 0, t_gateway_ns=gateway_ns, t_engine_ns=engine_ns, t_due_ns=due_ns, t_start_ns=start_ns, t_end_ns=end_ns
        ),
    )  # fmt: skip
    assert found.t_gateway_ns == min(gateway_ns, way.now_ns)
    assert found.t_start_ns <= found.t_end_ns <= way.now_ns and 0 <= found.t_due_ns <= way.now_ns
    if engine_ns:
        assert found.t_gateway_ns <= found.t_engine_ns <= found.t_start_ns
    else:
        assert found.t_engine_ns == 0, "it is not known"


def test_samples_without_frames_have_no_time_of_their_arrival() -> None:
    way = Way(steady(6), steady(6), 5 * HOUR).probes()
    start_ns = way.engine_ns(way.now_ns)
    found = moved(way, ipc.Pcm(1, 0, 0, last=True, t_start_ns=start_ns, t_end_ns=start_ns))
    assert found.t_engine_ns == 0 and abs(found.t_end_ns - way.now_ns) < 10 * MS


def test_overload_began_at_a_time_of_the_gateways_clock() -> None:
    way = Way(steady(6), steady(6), 5 * HOUR)
    began_ns = way.now_ns
    load = ipc.Load(ipc.EngineLoad(streams=1, busy=1.0, degraded=Degradation(since_ns=way.engine_ns(began_ns))))

    def since_ns() -> int | None:
        found = way.link.in_our_clock(load, way.now_ns)
        assert isinstance(found, ipc.Load) and isinstance(found.stats, ipc.EngineLoad) and found.stats.degraded
        return found.stats.degraded.since_ns

    assert since_ns() is None, "nothing is known of the clock"
    way.probes()
    assert since_ns() == pytest.approx(began_ns, abs=MS)
