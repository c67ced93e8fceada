"""The simulations keep the daemon's promises, are equal for equal seeds, and agree with what is known of such systems."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from glowd.daemon import engine_link
from glowd.daemon.cluster.demand import Committed, Fixed, Predicted, Refusals, Rule
from glowd.daemon.gateway.handles.link import Link as MeasuredLink
from tests.bench.simulation.curve import CostCurve, erlang_refused
from tests.bench.simulation.day import Outcome, Setup, Simulation
from tests.bench.simulation.inputs import CPU, H100, GatewayFigures, LinkFigures
from tests.bench.simulation.link import Link
from tests.bench.simulation.load import Day, Peak
from tests.bench.simulation.scale import CORE, first_short, parts, to_buy
from tests.bench.simulation.talker import Listener
from tests.bench.simulation.window import Window, WindowOutcome, WindowSetup

MINUTES = Day(streams=130, seconds=1500.0, stream_s=150.0, peaks=(Peak(0.12, 6.0, 0.05),))
NO_JITTER = LinkFigures(base_ms=0.1, jitter_ms=0.0)


def small(rule: Rule, **changes: object) -> Outcome:
    """Twenty-five minutes with a peak, and at most three engines, of which one fails now and then."""
    setup = Setup(figures=CPU, rule=rule, day=MINUTES, engines=3, hold_s=60.0, crash_h=0.3, seed=3)
    return Simulation(dataclasses.replace(setup, **changes)).run()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rule", [Committed(0.7), Predicted(), Refusals(), Fixed(36)], ids=lambda rule: type(rule).__name__
)
def test_no_stream_is_lost_and_no_engine_is_too_full(rule: Rule) -> None:
    """`Fleet.check` looks every ten seconds, and `_closing` at each stream; here is that something was there to look at."""
    found = small(rule)
    assert found.offered == found.refused + found.closed > 100
    assert found.counts.crashes > 0 and found.counts.moves_by_crash > 0
    assert (found.counts.moves_by_drain > 0) == (not isinstance(rule, Fixed))
    assert 1 / CostCurve(CPU).capacity().streams < found.cost < 1


def test_equal_seeds_give_equal_days_and_others_do_not() -> None:
    first, again, other = (small(Committed(0.7), seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.timeline.rows != other.timeline.rows


def test_full_cluster_refuses_and_says_so_to_the_policy() -> None:
    found = small(Committed(0.7), engines=1, crash_h=0.0)
    assert found.refused > 20
    assert max(row[1] for row in found.timeline.rows) == CostCurve(CPU).capacity().streams


def test_fixed_cluster_refuses_what_erlangs_formula_says() -> None:
    """With a constant load and any distribution of lengths the share is known since 1917."""
    day = Day(streams=2000, seconds=20_000.0, stream_s=230.0, peaks=())
    setup = Setup(figures=CPU, rule=Fixed(24), day=day, engines=2, at_first=2, crash_h=0.0, look_s=1000.0)
    found = Simulation(setup).run()
    assert found.refused / found.offered == pytest.approx(erlang_refused(23.0, 24), abs=0.04)
    assert erlang_refused(1.0, 1) == 0.5 and erlang_refused(23.0, 24) == pytest.approx(0.13, abs=0.01)


def test_cells_share_the_streams() -> None:
    found = small(Committed(0.7), engines=4, cells=2, at_first=2)
    assert found.offered == found.refused + found.closed
    assert found.counts.starts >= 2


# ---------------------------------------------------------------------- chunks


def window(streams: Sequence[int], **changes: object) -> WindowOutcome:
    """Some seconds of streams that all speak, over links without jitter."""
    setup = WindowSetup(
        streams=streams, seconds=4.0, pause_s=0.0, clients=NO_JITTER, machines=NO_JITTER, gateway_us=20.0, seed=2
    )
    return Window(dataclasses.replace(setup, **changes)).run()  # type: ignore[arg-type]


def test_engine_within_its_capacity_makes_no_underruns() -> None:
    found = window((12,))
    assert found.tally.speech_s > 30 and not found.tally.underruns and found.levels == [0]
    assert found.most_committed == 1.0
    assert 0.3 < found.engine_busy[0] < 1.0


def test_engine_beyond_its_capacity_makes_underruns() -> None:
    found = window((34,), seconds=3.5)
    assert found.tally.underruns["engine"] > 5 and found.levels[0] > 0


def test_slow_gateway_is_what_makes_underruns() -> None:
    found = window((6, 6), gateway_us=2500.0)
    assert found.gateway_busy > 0.95 and found.tally.underruns["engine"] == 0
    assert found.tally.underruns["gateway"] + found.tally.underruns["lost engine"] > 10


def test_streams_of_a_lost_engine_go_on_elsewhere() -> None:
    found = window((3, 3), crash_at_s=1.0)
    silent = window((3, 3), seconds=6.0, crash_at_s=1.0, is_silent=True)
    assert found.moved == silent.moved == 3 and found.tally.failed == silent.tally.failed == 0
    gap_s, silent_gap_s = (sum(one.tally.missing_s.values()) for one in (found, silent))
    assert gap_s < 1.0 < 6.0 < silent_gap_s, "a machine that is gone is noticed after 3 s, an ended connection at once"


def measured_cushion_s(figures: LinkFigures) -> float:
    """What a gateway measures in a minute of probes on a way there and one back."""
    there, back = (Link(figures, np.random.default_rng(seed)) for seed in (7, 8))
    found = MeasuredLink(engine_link.VERSION)
    for at_s in range(1, 65):
        read_s = there.arrival_s(at_s)
        sent_ns, read_ns, came_ns = (int(1e9 * one) for one in (at_s, read_s, back.arrival_s(read_s)))
        found.echo(engine_link.Echo(sent_ns, read_ns, read_ns), came_ns)
    return found.cushion_ms / 1000


def test_measured_cushion_takes_most_gaps_of_a_way_that_varies() -> None:
    uneasy = LinkFigures(base_ms=10.0, jitter_ms=20.0)

    def gaps(prefill_s: float) -> float:
        setup = WindowSetup(
            streams=(4, 4),
            seconds=40.0,
            machines=uneasy,
            clients=LinkFigures(1.0, 0.2),
            pause_s=1.0,
            prefill_s=prefill_s,
        )
        return Window(setup).run().underruns_per_minute

    without, with_cushion = gaps(0.1), gaps(0.1 + measured_cushion_s(uneasy))
    assert without > 5 and with_cushion < without / 5


def test_equal_seeds_give_equal_windows() -> None:
    first, again = (window((2, 2), clients=LinkFigures(5.0, 5.0), seconds=2.0) for _ in range(2))
    assert first.tally.chunk_s == again.tally.chunk_s


# ---------------------------------------------------------------------- the parts


def test_step_between_measured_batches_lies_between_their_times() -> None:
    curve = CostCurve(CPU)
    assert curve.step_s(10) == pytest.approx(0.01916)
    assert curve.step_s(8) < curve.step_s(9) < curve.step_s(10)
    assert curve.step_s(10, 8) == pytest.approx(0.0343, rel=0.05), "measured: 34.25 ms"
    assert curve.step_s(32) > curve.step_s(16) * 1.5


def test_capacity_is_what_the_daemon_measures_with_these_times() -> None:
    assert CostCurve(CPU).capacity().streams == 12


def test_load_has_its_streams_its_peaks_and_its_lengths() -> None:
    day = Day()
    opened, lengths = day.draw(np.random.default_rng(1))
    assert len(opened) == pytest.approx(50_000, rel=0.02) and lengths.mean() == pytest.approx(780, rel=0.03)
    by_hour = np.histogram(opened / 3600, bins=24, range=(0, 24))[0]
    assert by_hour[19:21].max() == by_hour.max() and by_hour[9:12].max() > 2 * by_hour[14:16].max() > by_hour[3]


def test_link_keeps_the_order_and_stops() -> None:
    link = Link(LinkFigures(10.0, 5.0, stops_per_s=1.0, stop_ms=500.0), np.random.default_rng(4))
    sent = [0.01 * number for number in range(500)]
    arrived = [link.arrival_s(at_s) for at_s in sent]
    assert arrived == sorted(arrived) and min(a - s for a, s in zip(arrived, sent)) > 0.01
    assert 0.4 < max(a - s for a, s in zip(arrived, sent)) < 0.6


def test_listener_counts_what_was_missing_once() -> None:
    from glowd.daemon import wire

    listener, taken = Listener(0.1), list[float]()
    for number, at_s in enumerate((0.0, 0.05, 0.3, 0.35)):
        samples = 2205
        message = wire.Audio("s", 0, number, number * samples, samples, rate_hz=22_050)
        taken.append(listener.take(message, at_s))
    assert taken == [0.0, 0.0, pytest.approx(0.1), 0.0], "it plays from 0.0 on; the third chunk was due at 0.2"


def test_what_ten_thousand_streams_need_is_counted() -> None:
    gateway = GatewayFigures(
        stream_ms=5.0, snapshot_us=1.0, telemetry_period_ms=500.0, max_streams=1024, open_files=1024
    )
    cores = to_buy(10_000, parts(CPU, gateway), CPU, CPU.price)
    assert (cores["CPU core"], cores["engine processes"], cores["gateways"]) == (1042, 1042, 100)
    assert cores["price of an hour"] == pytest.approx(1142 * CPU.price)
    gpus = to_buy(10_000, parts(H100, gateway), H100, CPU.price)
    assert gpus["H100"] < gpus["engine processes"], "several engines share a GPU, each with a core of its own"
    assert gpus["price of an hour"] == pytest.approx(
        gpus["H100"] * H100.price + (gpus["engine processes"] + 100) * CPU.price
    )


def test_first_part_that_is_short_is_named() -> None:
    gateway = GatewayFigures(
        stream_ms=5.0, snapshot_us=1.0, telemetry_period_ms=500.0, max_streams=1024, open_files=1024
    )
    found = {part.what: part for part in parts(H100, gateway)}
    assert found[CORE].serves == 100
    assert first_short(list(found.values()), H100).what == CORE
    fast = dataclasses.replace(gateway, stream_ms=0.1)
    assert first_short(parts(H100, fast), H100).what.startswith("gateway: streams allowed")
    host = next(part for part in found.values() if part.what.startswith("process of"))
    assert host.serves < found["H100: the network"].serves, "the GPU is not what an H100 runs out of"
