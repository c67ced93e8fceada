"""How the loads of several engines become one, and how many streams they take together."""

import pytest

from glowd.daemon import ipc
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.snapshot import combined, most_streams
from glowd.daemon.ipc import EngineLoad
from glowd.daemon.wire.telemetry import Degradation, EngineWork
from tests.daemon.link_messages import CAPACITY, INFO

ONE = EngineLoad(
    streams=2, busy=0.25, batches_per_s=20.0, audio_per_s=2.0, level=1, degraded=Degradation(level=1, reason="a")
)
TWO = EngineLoad(
    streams=1, busy=0.75, stolen=0.5, batches_per_s=10.0, audio_per_s=1.0, late=0.6, level=3,
    degraded=Degradation(level=3, reason="b"),
)  # fmt: skip


def test_combined_adds_engines_of_a_voice() -> None:
    assert combined([ONE, TWO]) == EngineWork(
        streams=3, busy=0.5, stolen=0.5, batches_per_s=30.0, audio_per_s=3.0, late=0.6, level=3, degraded=TWO.degraded
    )


def test_combined_of_one_engine_is_its_load() -> None:
    assert combined([ONE]) == EngineWork(
        streams=2, busy=0.25, batches_per_s=20.0, audio_per_s=2.0, level=1, degraded=ONE.degraded
    )


def test_combined_of_nothing_is_none() -> None:
    assert combined([]) == EngineWork()
    assert combined([EngineLoad(streams=0, busy=0.0)]) == EngineWork(streams=0, busy=0.0)


def ready_engine(name: str) -> EngineHandle:
    """One that takes CAPACITY.streams."""
    engine = EngineHandle(name, "glow", lambda _: True)
    engine.handle(ipc.Ready("glow", INFO, 7), [], 0)
    return engine


@pytest.mark.parametrize("action", ["cordon", "drain"])
def test_engine_that_gets_no_streams_is_full_with_its_own(action: str) -> None:
    engines, streams = [ready_engine("a"), ready_engine("b")], {"a": 3, "b": 1}
    assert most_streams(engines, streams) == 2 * CAPACITY.streams
    engines[0].place(action)
    assert most_streams(engines, streams) == 3 + CAPACITY.streams
    engines[0].place("uncordon")
    assert most_streams(engines, streams) == 2 * CAPACITY.streams


def test_no_engine_has_no_limit_to_tell() -> None:
    assert most_streams([], {}) is None
