"""Figures and where they go: results.json keeps every run by commit and device, RESULTS.md shows the newest.

A directory holds results.json, RESULTS.md and the plots in it; the repository's own is this file's.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.bench import plots

HERE = Path(__file__).parent
JSON, PAGE = "results.json", "RESULTS.md"
TOGETHER = ("scale: ", "simulated ")
"""Figures of such names follow from others, and so do their settings: those of one name are of one run, or they contradict."""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `goal` is a bound on the value, e.g. "<= 0.25", or empty; `beside`: what was measured together with it.

    `series`: curves for a plot, equally long; they are not in the table.
    """

    name: str
    value: float
    unit: str
    device: str
    settings: dict[str, Any] = field(default_factory=dict)
    goal: str = ""
    beside: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


INTRODUCTION = (
    "Made by `make bench`; do not edit. Every run stands in results.json, by commit and device; here is the newest value of each",
    "figure. A chunk's latency is that of 1000 calls and more, after 50 that do not count; times include bringing the samples to",
    "the host. `beside` has what was measured together with a figure: percentiles, maximum and interquartile range (iqr) in ms;",
    "`error`, the largest difference between streamed and whole-utterance samples. `load` is the load average as a run began.",
)  # fmt: skip


def scheduling() -> str:
    """How this process is scheduled: on a busy machine every hand-over from process to process waits for its turn."""
    return "normal" if os.sched_getscheduler(0) == os.SCHED_OTHER else "real time"


def percentiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99, maximum and interquartile range in milliseconds."""
    values = 1000 * np.asarray(times_s)
    low, high = np.percentile(values, (25, 75))
    percentiles = {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)}
    return percentiles | {"max": float(values.max()), "iqr": float(high - low)}


def cpu_name() -> str:
    """The processor and its cores, for the rows' device column."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = f"{names[0]} x {len(names)}" if names else model
    return model


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()


def commit() -> str:
    """The commit that is measured."""
    return _git("rev-parse", "--short", "HEAD") or "unknown"


def conditions() -> dict[str, Any]:
    """What a run's figures depend on beside its device: software, cores, and what else the machine was doing."""
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }


def key(row: dict[str, Any]) -> str:
    """What makes a figure the same one as another: its name and settings."""
    return str(row["name"]) + json.dumps(row["settings"], sort_keys=True)


def write(results: Sequence[Result], before: dict[str, Any], directory: Path = HERE) -> None:
    """Append to results.json (what the same commit and device has of the same name and settings is replaced), draw the page.

    `before`: the conditions when the run began.
    """
    runs = load_runs(directory)
    for device in dict.fromkeys(result.device for result in results):
        rows = [_row(result) for result in results if result.device == device]
        _append(runs, {"commit": commit(), "device": device} | before, rows)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON).write_text(json.dumps(runs, indent=1) + "\n")
    draw(directory)


def _row(result: Result) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "series" or value}


def draw(directory: Path = HERE) -> None:
    """RESULTS.md and its plots, from results.json."""
    runs = load_runs(directory)
    for device in dict.fromkeys(run["device"] for run in runs):
        plots.draw(newest(runs, device), device, directory)
    (directory / PAGE).write_text(page(runs))


def load_runs(directory: Path = HERE) -> list[dict[str, Any]]:
    """All runs in results.json, oldest first; none if there is no such file."""
    path = directory / JSON
    runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return runs


def _append(runs: list[dict[str, Any]], head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Add a device's rows to the run of its commit, which becomes the newest."""
    keys, replaced = {key(row) for row in rows}, {row["name"] for row in rows if row["name"].startswith(TOGETHER)}
    same = [run for run in runs if (run["commit"], run["device"]) == (head["commit"], head["device"])]
    kept = [row for run in same for row in run["results"] if key(row) not in keys and row["name"] not in replaced]
    for run in same:
        runs.remove(run)
    runs.append(head | {"results": kept + rows})


def newest(runs: Sequence[dict[str, Any]], device: str) -> list[tuple[Result, dict[str, Any]]]:
    """The newest value of every figure of a device, and the run it is from."""
    found: dict[str, tuple[Result, dict[str, Any]]] = {}
    last: dict[str, dict[str, Any]] = {}
    for run in runs:
        for row in run["results"] if run["device"] == device else ():
            found[key(row)], last[row["name"]] = (Result(**row), run), run
    return [(one, run) for one, run in found.values() if not one.name.startswith(TOGETHER) or run is last[one.name]]


def page(runs: Sequence[dict[str, Any]]) -> str:
    """RESULTS.md: the newest value of every figure, by device, with its settings and the commit it was measured at."""
    lines = ["# Measured", "", *INTRODUCTION]
    for device in dict.fromkeys(run["device"] for run in runs):
        found = newest(runs, device)
        lines += ["", f"## {device}", "", f"The newest run: {_words(runs, device)}.", ""]
        for plot in plots.PLOTS:
            if plot.curves(found):
                lines += [f"![{plot.title}]({plot.file(device)})", "", plot.caption + plot.more(found), ""]
        lines += ["| figure | value | unit | goal | beside | settings | commit |", "|---|---|---|---|---|---|---|"]
        lines += [_line(result, run) for result, run in found]
    return "\n".join(lines) + "\n"


def _words(runs: Sequence[dict[str, Any]], device: str) -> str:
    run = [run for run in runs if run["device"] == device][-1]
    return ", ".join(
        f"{name} {run[name]}" for name in ("commit", "date", "torch", "python", "cores", "load") if name in run
    )


def _line(result: Result, run: dict[str, Any]) -> str:
    mark = {True: f"{result.goal}: met", False: f"{result.goal}: **missed**", None: ""}[result.met]
    beside = ", ".join(f"{name} {value:.3g}" for name, value in result.beside.items())
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    cells = result.name, f"{result.value:.4g}", result.unit, mark, beside, settings, f"{run['commit']}, {run['date']}"
    return f"| {' | '.join(cells)} |"
