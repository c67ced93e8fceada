"""How the loads of several engines become one."""

from glowd.daemon.gateway.snapshot import combined
from glowd.daemon.ipc import EngineLoad
from glowd.daemon.wire.telemetry import Degradation, EngineWork

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
