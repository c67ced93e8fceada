"""The verdict on a soak of clocks that differ: met by a run that is well, missed by one that has the fault."""

from dataclasses import replace
from pathlib import Path

import pytest

from glowd.daemon.wire.telemetry import Snapshot, StreamSnapshot
from tests.harness.drifting import Look
from tests.soak.drift import Run, draw, second, verdict

NAMES = ("500ppm", "-500ppm")


def looks(count: int = 100, creep_ms: float = 0.0) -> list[Look]:
    """One in a second. Until a clock is followed, the latency moves by 3 ms; `creep_ms`: and by so much in each second."""
    return [
        Look(
            at_s, None if at_s < 2 else 700 + creep_ms * at_s + (3.0 if 12 < at_s < 60 else 0.0),
            None if at_s < 10 else 500.0, 0, 0.0,
        )
        for at_s in range(count)
    ]  # fmt: skip


def ended(**changes: float) -> list[Look]:
    """The same, where the last one differs."""
    *found, last = looks()
    return [*found, replace(last, **changes)]  # type: ignore[arg-type]


def run(**changes: object) -> Run:
    samples = dict.fromkeys(NAMES, 100 * 22050)
    return replace(Run(dict.fromkeys(NAMES, looks()), samples, samples, 1.2), **changes)  # type: ignore[arg-type]


def missed(found: Run) -> list[str]:
    return [result.name for result in verdict(found, {}) if result.met is False]


def test_run_that_is_well_meets_every_criterion() -> None:
    assert missed(run()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"looks": {NAMES[0]: looks(creep_ms=0.05), NAMES[1]: looks()}}, "latency of a client at 500ppm"),
        ({"looks": {NAMES[0]: looks(50), NAMES[1]: looks()}}, "latency of a client at 500ppm"),
        ({"looks": {NAMES[0]: ended(underruns=1), NAMES[1]: looks()}}, "gaps"),
        ({"looks": {NAMES[0]: looks(), NAMES[1]: ended(skipped_ms=5.0)}}, "left out"),
        ({"played_samples": dict.fromkeys(NAMES, 100 * 22050 - 1)}, "samples that were not played"),
        ({"steps_off": 200.0}, "what was heard"),
    ],
    ids=["latency", "too short", "gap", "left out", "sample", "sound"],
)
def test_each_fault_is_missed(changes: dict[str, object], what: str) -> None:
    (found,) = missed(run(**changes))
    assert what in found


def test_stream_that_was_never_paced_is_missed() -> None:
    assert len(missed(run(looks=dict.fromkeys(NAMES, looks(8))))) == len(NAMES)


def test_seconds_are_drawn(tmp_path: Path) -> None:
    streams = [StreamSnapshot(latency_ms=look.latency_ms, drift_ppm=look.drift_ppm) for look in looks()]
    lines = [second(float(at_s), Snapshot(streams={"0ppm": one}), (1.0, 2.0)) for at_s, one in enumerate(streams)]
    draw(lines, tmp_path / "drift.png", "made up")
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"
