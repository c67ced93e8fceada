"""Near and far engines: which one a new stream gets, by load and distance."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon import engine_link
from glowd.daemon.gateway.placement.pool import rank
from tests.daemon.gateway.placement.test_pool import NOW_NS, PlacementHarness, joined


@pytest.fixture
def harness() -> PlacementHarness:
    return PlacementHarness()


Told = tuple[str, str, float | None, int]


def ms(distance: int) -> float:
    """A distance that was measured."""
    return distance + 0.2


RANKS: list[tuple[str, Told, Told]] = [
    ("here, of equal loads", ("1", "1", None, 0), ("1", "1", ms(0), 0)),
    ("here, of equal loads, whatever their numbers", ("1/2", "1/2", None, 8), ("1/2", "1/2", ms(0), 2)),
    ("the nearer, of equal loads", ("1", "1", ms(5), 0), ("1", "1", ms(40), 0)),
    ("the far one, when the near one is loaded", ("1", "1", ms(20), 0), ("3/4", "3/4", None, 1)),
    ("here, while that is hardly loaded", ("7/8", "7/8", None, 1), ("1", "1", ms(20), 0)),
    ("a loaded one here, before one that is too far away", ("1/12", "1/12", None, 11), ("1", "1", ms(150), 0)),
    ("the nearer, of two that are too far away", ("1/2", "1/2", ms(150), 4), ("1", "1", ms(250), 0)),
    ("the freer device", ("1", "1/2", ms(1), 0), ("1", "1/4", None, 0)),
    ("the freer engine of one device", ("1", "1/4", ms(1), 0), ("1/2", "1/4", ms(1), 2)),
    ("the less loaded, of two that are equally far", ("3/4", "3/4", ms(30), 3), ("1/2", "1/2", ms(30), 2)),
    ("fewer streams, of equals", ("1", "1", None, 0), ("1", "1", None, 1)),
]
"""What is chosen, and of two engines: the free shares of engine and device, the distance, and the streams."""


@pytest.mark.parametrize(("better", "worse"), [row[1:] for row in RANKS], ids=[row[0] for row in RANKS])
def test_load_and_distance_choose(better: Told, worse: Told) -> None:
    first, second = (rank(Fraction(own), Fraction(device), away, count) for own, device, away, count in (better, worse))
    assert first > second


@given(
    st.fractions(0, 1), st.fractions(0, 1), st.floats(0, 1000), st.integers(0, 50), st.fractions(0, 1), st.floats(0, 1000)
)  # fmt: skip
def test_more_room_or_less_distance_is_never_worse(
    own: Fraction, device: Fraction, distance_ms: float, count: int, more: Fraction, further_ms: float
) -> None:
    one = rank(own, device, distance_ms, count)
    assert (
        rank(own + more, device + more, distance_ms, count) >= one >= rank(own, device, distance_ms + further_ms, count)
    )


def test_far_engine_helps_when_the_near_one_is_loaded(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", streams=8)
    joined(pool, harness, "glow/far", "far", streams=8, distance_ms=30.0)
    assert harness.open(pool, 8) == ["glow/0"] * 3 + ["glow/far", "glow/0"] * 2 + ["glow/far"]


def test_engine_beyond_reach_is_the_last_resort(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", streams=4)
    joined(pool, harness, "glow/far", "far", streams=4, distance_ms=180.0)
    assert harness.open(pool, 6) == ["glow/0"] * 4 + ["glow/far"] * 2


def test_engines_without_a_pace_share_streams_wherever_they_are(harness: PlacementHarness) -> None:
    pool = harness.add("slow/0", streams=None)
    joined(pool, harness, "slow/far", "far", streams=None, distance_ms=180.0)
    assert harness.open(pool, 4).count("slow/far") == 2


def test_cushion_is_that_of_the_engine_where_the_stream_is(harness: PlacementHarness) -> None:
    pool = harness.add("glow/0", streams=8)
    engine = joined(pool, harness, "glow/far", "far", streams=8, distance_ms=1.0)
    assert engine.link
    for trip_ms in (1, 61, 61):
        engine.link.echo(engine_link.Echo(NOW_NS, NOW_NS, NOW_NS), NOW_NS + trip_ms * 1_000_000)
    stream = harness.begin("a", engine)
    assert stream.cushion_ms == 60
    harness.streams.move(stream, pool.engines[0])
    assert stream.cushion_ms == 0
