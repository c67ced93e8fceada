"""The verdict on a soak, from what its minutes and its records say.

Rules: pure, so that it is tried on made-up soaks: a criterion that cannot be missed says nothing. A minute is the map that
report.py writes as a line of JSON.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tests.bench.report import Result, cpu_name
from tests.soak.records import Gap, Records
from tests.soak.windows import Window

WARM_UP_MINUTES = 3
"""A process that has just been started takes memory; the first half of its life at least does not count, too."""
LEAST_MINUTES = 3
"""Of one life of a process: fewer say nothing of its growth."""
BOUNDS = {"rss_mb": 0.1, "descriptors": 0.1, "threads": 0.05}
"""Growth in a minute that counts as none."""
UNITS = {"rss_mb": ("memory", "MB/min"), "descriptors": ("descriptors", "/min"), "threads": ("threads", "/min")}
STALL_MS = 20.0
"""A machine at rest wakes a real-time thread sooner than this."""
COUNTED = {
    "wrong utterances": "utterances that were not complete to the sample, or ended at a wrong index",
    "wrong gaps": "utterances with gaps that no warning told of",
    "wrong listening": "mistakes in what a listener to all streams heard",
    "wrong HTTP answers": "answers by HTTP that were wrong",
    "wrong client": "calls of a client that failed",
    "wrong recovery": "disturbances from which the daemon did not recover",
    "wrong log": "tracebacks in the daemon's log",
    "underruns of undisturbed utterances": "underruns of utterances that no disturbance touched",
}

Minutes = Sequence[Mapping[str, Any]]


def verdict(minutes: Minutes, records: Records, windows: Sequence[Window], settings: dict[str, Any]) -> list[Result]:
    """Every figure with its bound."""
    found = [*_counted(records), _gaps(records.gaps), _recovery(windows), *_latency(minutes), *_growth(minutes)]
    return [Result(f"soak: {name}", value, unit, cpu_name(), settings, goal, beside)
            for name, value, unit, goal, beside in found]  # fmt: skip


Figure = tuple[str, float, str, str, dict[str, float]]


def _counted(records: Records) -> Iterator[Figure]:
    totals = records.totals
    beside: dict[str, dict[str, float]] = {
        "wrong utterances": {"played": totals["played"], "flushed": totals["flushed"]},
        "wrong listening": {"utterances": totals["utterances listened to"], "Msamples": totals["samples listened to"] / 1e6},
        "wrong HTTP answers": {"right": totals["HTTP answers"]},
    }  # fmt: skip
    for what, name in COUNTED.items():
        yield name, totals[what], "", "<= 0", beside.get(what, {})
    refused: dict[str, float] = {"in disturbances": totals["refused while disturbed"]}
    yield "streams refused for a while, outside of the disturbances", totals["refused outside"], "", "", refused
    yield "utterances judged", totals["played"] + totals["flushed"], "", ">= 1", {}


def _gaps(gaps: Sequence[Gap]) -> Figure:
    outside = [gap for gap in gaps if not gap.is_disturbed]
    by_cause: dict[str, float] = defaultdict(float)
    for gap in outside:
        by_cause[f"by the {gap.cause}"] += gap.count
    stalled = sum(gap.count for gap in outside if max(gap.stall_ms) > STALL_MS)
    announced = sum(gap.count for gap in gaps if gap.is_disturbed)
    beside = {**by_cause, f"while the machine stalled over {STALL_MS:g} ms": stalled, "in disturbances": announced}
    return "gaps on the device outside of the disturbances", sum(gap.count for gap in outside), "", "<= 0", beside


def _recovery(windows: Sequence[Window]) -> Figure:
    lengths = [window.seconds for window in windows]
    beside = {"disturbances": len(lengths), "median": float(np.median(lengths)) if lengths else 0.0}
    return "longest disturbance, until the daemon was whole", max(lengths, default=0.0), "s", "<= 120", beside


def _latency(minutes: Minutes) -> Iterator[Figure]:
    measured = [(minute["minute"], minute["late_ms"]) for minute in minutes if minute["late_ms"]]
    if not measured:
        return
    for name in ("p50", "p99"):
        values = [late[name] for _, late in measured]
        yield (
            f"live chunk in to samples out, {name}, median minute",
            float(np.median(values)),
            "ms",
            "",
            {"worst": max(values)},
        )
    if len(measured) >= WARM_UP_MINUTES + LEAST_MINUTES:
        points = [(number, late["p50"], 0) for number, late in measured]
        yield "growth of that p50", growth(points), "ms/min", "<= 0.1", {}


def _growth(minutes: Minutes) -> Iterator[Figure]:
    roles = dict.fromkeys(role for minute in minutes for role in minute["processes"])
    for what, bound in BOUNDS.items():
        for role in roles:
            points = [
                (minute["minute"], minute["processes"][role][what], minute["processes"][role]["pid"])
                for minute in minutes if role in minute["processes"]
            ]  # fmt: skip
            value = growth(points)
            if value == value:
                last = {"last": points[-1][1]}
                yield f"growth of {UNITS[what][0]}, {role}", value, UNITS[what][1], f"<= {bound:g}", last


def growth(points: Iterable[tuple[float, float, int]]) -> float:
    """Growth in a minute by least squares over all lives of a process, each from a value of its own.

    Points are minute, value and process id. Without enough of them it is not a number.
    """
    lives: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for minute, value, pid in points:
        lives[pid].append((minute, value))
    late = [life[max(WARM_UP_MINUTES, len(life) // 2) :] for life in lives.values()]
    kept = [np.asarray(life, np.float64) for life in late]
    kept = [life - life.mean(0) for life in kept if len(life) >= LEAST_MINUTES]
    if not kept:
        return float("nan")
    x, y = np.concatenate(kept).T
    return float(x @ y / (x @ x))
