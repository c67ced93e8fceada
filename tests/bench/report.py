"""Figures and where they go: results.json keeps every run by commit and device, RESULTS.md shows the newest."""

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
JSON, PAGE = HERE / "results.json", HERE / "RESULTS.md"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `goal` is a bound on the value, e.g. "<= 0.25", or empty."""

    name: str
    value: float
    unit: str
    device: str
    settings: dict[str, Any] = field(default_factory=dict)
    goal: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


def percentiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and maximum in milliseconds."""
    values = 1000 * np.asarray(times_s)
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)} | {"max": float(values.max())}


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


def write(results: Sequence[Result]) -> None:
    """Append a run to results.json (a run of the same commit and device replaces rows of the same name) and draw the page."""
    runs = json.loads(JSON.read_text()) if JSON.exists() else []
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    device = results[0].device
    names = {(r.name, json.dumps(r.settings, sort_keys=True)) for r in results}
    same = next((run for run in runs if run["commit"] == commit and run["device"] == device), None)
    if same is None:
        same = {"commit": commit, "device": device, "date": date.today().isoformat(), "results": []}
        runs.append(same)
    kept = [r for r in same["results"] if (r["name"], json.dumps(r["settings"], sort_keys=True)) not in names]
    same["results"] = kept + [asdict(r) for r in results]
    JSON.write_text(json.dumps(runs, indent=1) + "\n")
    PAGE.write_text(page(runs))


def page(runs: Sequence[dict[str, Any]]) -> str:
    """RESULTS.md: the newest value of every figure, by device, and the commit it was measured at."""
    lines = ["# Measured", "", "Made by `make bench`; do not edit. Every run stands in results.json.", ""]
    for device in dict.fromkeys(run["device"] for run in runs):
        newest: dict[str, tuple[Result, str]] = {}
        for run in (run for run in runs if run["device"] == device):
            for row in run["results"]:
                key = row["name"] + json.dumps(row["settings"], sort_keys=True)
                newest[key] = Result(**row), f"{run['commit']}, {run['date']}"
        lines += [
            f"## {device}",
            "",
            "| figure | value | unit | goal | settings | commit |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_line(result, commit) for result, commit in newest.values()]
        lines.append("")
    return "\n".join(lines)


def _line(result: Result, commit: str) -> str:
    mark = {True: f"{result.goal}: met", False: f"{result.goal}: **missed**", None: ""}[result.met]
    settings = ", ".join(f"{key} {value}" for key, value in result.settings.items())
    return f"| {result.name} | {result.value:.4g} | {result.unit} | {mark} | {settings} | {commit} |"
