"""The verdict on a soak: each criterion is met by a soak that is well, and missed by one that has the fault."""

from typing import Any

import pytest

from tests.bench.report import Result
from tests.soak.judge import growth, verdict
from tests.soak.records import Gap, Records
from tests.soak.windows import Window, Windows


def minutes(count: int, leak_mb: float = 0.0, descriptors: float = 0.0, slower_ms: float = 0.0) -> list[dict[str, Any]]:
    """A gateway that is killed after half of the time; what grows, grows in each of its lives."""
    lives = [number % (count // 2) for number in range(count)]
    return [
        {
            "minute": number, "seconds": 60.0 * number, "counts": {}, "stall_ms": [1.0, 2.0], "disturbances": {},
            "late_ms": {"p50": 5.0 + slower_ms * number, "p99": 20.0, "max": 30.0},
            "processes": {
                "gateway": {
                    "pid": 1 + (number >= count // 2), "rss_mb": 50 + leak_mb * life + (5 if life < 2 else 0),
                    "descriptors": 30 + int(descriptors * life), "threads": 4,
                }
            },
        }
        for number, life in enumerate(lives)
    ]  # fmt: skip


def records() -> Records:
    """Of a soak that is well."""
    found = Records()
    found.count("played", 10)
    return found


def missed(results: list[Result]) -> list[str]:
    return [result.name.removeprefix("soak: ") for result in results if result.met is False]


def test_soak_that_is_well_meets_every_criterion() -> None:
    found = verdict(minutes(40), records(), [Window("kill gateway", 100.0, 104.0)], {})
    assert missed(found) == [] and {"soak: growth of memory, gateway", "soak: growth of that p50"} <= {
        f.name for f in found
    }


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"leak_mb": 0.2}, "growth of memory, gateway"),
        ({"descriptors": 0.5}, "growth of descriptors, gateway"),
        ({"slower_ms": 0.2}, "growth of that p50"),
    ],
)
def test_growth_is_found_though_the_process_was_restarted(fault: dict[str, float], name: str) -> None:
    assert missed(verdict(minutes(40, **fault), records(), [], {})) == [name]


@pytest.mark.parametrize("kind", ["utterances", "gaps", "listening", "HTTP answers", "client", "recovery", "log"])
def test_one_fault_of_any_kind_is_enough(kind: str) -> None:
    found = records()
    found.fault(kind, "it went wrong")
    assert len(missed(verdict(minutes(10), found, [], {}))) == 1 and found.faults == [f"{kind}: it went wrong"]


def test_gap_outside_misses_and_a_gap_in_a_disturbance_does_not() -> None:
    for is_disturbed, names in ((True, []), (False, ["gaps on the device outside of the disturbances"])):
        found = records()
        found.gap(Gap(7.0, "engine", 2, is_disturbed, (95.0, 99.0)))
        results = verdict(minutes(10), found, [], {})
        assert missed(results) == names
    (row,) = [result for result in results if result.met is False]
    assert row.value == 2 and row.beside == {
        "by the engine": 2,
        "while the machine stalled over 20 ms": 2,
        "in disturbances": 0,
    }


def test_soak_in_which_nothing_was_spoken_is_missed() -> None:
    assert missed(verdict(minutes(10), Records(), [], {})) == ["utterances judged"]


def test_growth_of_short_lives_is_not_known() -> None:
    assert str(growth([(minute, 50.0, 1) for minute in range(5)])) == "nan"


def test_window_touches_what_overlaps_it() -> None:
    windows = Windows()
    window = windows.begin("kill web", 10.0)
    assert windows.touches(5.0, 10.0) and windows.touches(500.0, 501.0) and not windows.touches(5.0, 9.9)
    windows.end(window, 12.0)
    assert windows.touches(11.0, 30.0) and windows.touches(0.0, 99.0) and not windows.touches(12.1, 13.0)
