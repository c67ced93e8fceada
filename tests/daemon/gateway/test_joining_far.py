"""Engines behind ways that take their time, through real sockets: what is measured of the way, and which engine is chosen."""

import random
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from glowd.daemon.gateway.handles.link import FIRST_PROBES
from glowd.daemon.wire.telemetry import Capacity, LinkSnapshot
from tests.fakes.joined import FakeJoined
from tests.fakes.roles import frames
from tests.harness.gateway import UtteranceClient
from tests.harness.joined_gateway import Place, engine_of, running_place
from tests.harness.slow_way import Delay, slow_way

HOURS_NS = 7 * 3_600_000_000_000


@pytest.fixture
def place() -> Iterator[Place]:
    with running_place() as found:
        yield found


def steady(seconds: float) -> Delay:
    return lambda: seconds


def join_by(place: Place, port: int, called: str, ahead_ns: int = 0) -> FakeJoined:
    """An engine that joins by a way."""
    key = replace(place.pool, url=f"tcp://127.0.0.1:{port}")
    return place.join(called, key, ahead_ns=ahead_ns, capacity=Capacity(streams=8, measured=True))


def probed(place: Place, *engines: FakeJoined) -> None:
    """Wait until the ways to engines have had their first probes."""
    probes = {engine: engine.probes + FIRST_PROBES for engine in engines}
    place.wait_for("probes", lambda _: all(engine.probes >= count for engine, count in probes.items()))


def measured(place: Place, engine: FakeJoined) -> LinkSnapshot:
    """What the gateway knows of the way to an engine, after its first probes."""
    probed(place, engine)
    link = engine_of(place.client().status(), engine).link
    assert link is not None
    return link


def port_of(place: Place) -> int:
    return int(place.url.rpartition(":")[2])


def test_way_and_clock_of_a_far_engine_are_measured(place: Place) -> None:
    with slow_way(port_of(place), steady(0.05), steady(0.03)) as way:
        engine = join_by(place, way.port, "far", ahead_ns=HOURS_NS)
        link = measured(place, engine)
        assert link.trip_ms is not None and 80 <= link.trip_ms < 110
        assert link.ahead_ms == pytest.approx(HOURS_NS / 1e6 - 10, abs=20), (
            "half of what the ways differ by, and no hours"
        )
        go = threading.Event()
        spoken = UtteranceClient(place.endpoint, "s", frames(300), 3, 1, go=go)
        place.wait_for("speaking", lambda found: any(one.made_samples for one in found.streams.values()))
        (stream,) = place.client().status().streams.values()
        ways = [stream.stages.times[stage].mean_ms or 0.0 for stage in ("transport", "return")]
        assert sum(ways) >= 80 and min(ways) >= 20
        go.set()
        spoken.check()


def test_way_that_varies_has_jitter(place: Place) -> None:
    dice = random.Random(5)
    with slow_way(port_of(place), lambda: dice.choice((0.0, 0.06)), steady(0.0)) as way:
        link = measured(place, join_by(place, way.port, "uneasy"))
        assert link.trip_ms is not None and link.trip_ms < 40
        assert link.jitter_ms is not None and 40 < link.jitter_ms < 120


def test_near_engine_is_filled_before_one_that_is_too_far(place: Place) -> None:
    with slow_way(port_of(place), steady(0.08), steady(0.08)) as way:
        far, near = join_by(place, way.port, "far"), join_by(place, port_of(place), "near")
        probed(place, far, near)
        client = place.client()
        for number in range(10):
            client.open(f"s{number}", "null")
        placed = [stream.engine for stream in client.status().streams.values()]
        assert placed.count("glow/near") == 8 and placed.count("glow/far") == 2
