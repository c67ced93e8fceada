"""An engine of the release before at a gateway of today."""

import threading
from collections.abc import Iterator

import pytest

from tests.fakes.old_link import OldEngine
from tests.fakes.roles import frames
from tests.harness.gateway import UtteranceClient
from tests.harness.joined_gateway import Place, running_place
from tests.harness.waiting import until

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def place() -> Iterator[Place]:
    with running_place() as found:
        yield found


def test_old_engine_serves_beside_one_of_today(place: Place) -> None:
    old = OldEngine(place.pool, "old", ahead_ns=-HOUR_NS)
    place.engines.append(old)
    until(lambda: old.joined, "an answer")
    assert old.joined and old.joined.version == 1
    place.wait_for("ready", lambda found: found.voices["glow"].engines["glow/old"].ready)
    go = threading.Event()
    spoken = [UtteranceClient(place.endpoint, f"s{n}", frames(300, n), 3, n, go=go) for n in range(2)]
    place.wait_for("speaking", lambda found: sum(bool(one.made_samples) for one in found.streams.values()) == 2)
    for stream in place.client().status().streams.values():
        times = [one.mean_ms for one in stream.stages.times.values()]
        assert all(one is not None and 0 <= one < HOUR_NS / 1e6 for one in times), "its clock is not ours"
    place.join("today")
    old.leave()
    go.set()
    for one in spoken:
        one.check()
    until(lambda: old.is_dismissed, "the end")
    assert old.refused == [], "the gateway has sent what version 1 does not know"
