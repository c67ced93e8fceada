"""A soak as a picture: memory, gaps and latency by the minute, with the disturbances marked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(minutes: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the minutes into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    memory, gaps, latency = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title)
    _memory(memory, minutes)
    _gaps(gaps, minutes)
    _latency(latency, minutes)
    for axes in (memory, gaps, latency):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        for at, what in _disturbances(minutes):
            axes.axvline(at, color=COLOURS[what.split()[0]], alpha=0.35, linewidth=1)
    for at, what in _disturbances(minutes):
        memory.annotate(what, (at, 1), xycoords=("data", "axes fraction"), rotation=90, fontsize=5, va="top")
    latency.set_xlabel("minutes")
    figure.savefig(path, dpi=110)


COLOURS = {"kill": "red", "stop": "orange", "hang": "purple"}


def _disturbances(minutes: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    """When each began, in minutes, and what it was."""
    return [
        (float(at.removesuffix(" s")) / 60, what) for minute in minutes for at, what in minute["disturbances"].items()
    ]


def _times(minutes: Sequence[Mapping[str, Any]]) -> list[float]:
    return [minute["seconds"] / 60 for minute in minutes]


def _memory(axes: Any, minutes: Sequence[Mapping[str, Any]]) -> None:
    axes.set_ylabel("resident memory, MB")
    axes.set_yscale("log")
    for role in dict.fromkeys(role for minute in minutes for role in minute["processes"]):
        found = [minute for minute in minutes if role in minute["processes"]]
        axes.plot(_times(found), [minute["processes"][role]["rss_mb"] for minute in found], label=role, linewidth=1)


def _gaps(axes: Any, minutes: Sequence[Mapping[str, Any]]) -> None:
    axes.set_ylabel("gaps in the minute")
    for where, style in (("announced", "--"), ("outside", "-")):
        for cause in ("device", "engine", "client"):
            values = [minute["counts"].get(f"gaps {where} by {cause}", 0) for minute in minutes]
            label = f"by the {cause}, {'disturbed' if where == 'announced' else 'outside'}"
            axes.plot(_times(minutes), values, style, label=label, linewidth=1)


def _latency(axes: Any, minutes: Sequence[Mapping[str, Any]]) -> None:
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    measured = [minute for minute in minutes if minute["late_ms"]]
    for name in ("p50", "p99"):
        axes.plot(
            _times(measured), [minute["late_ms"][name] for minute in measured], label=f"chunk in to samples out, {name}"
        )
    for number, name in enumerate(("real-time", "plain")):
        values = [max(minute["stall_ms"][number], 0.01) for minute in minutes]
        axes.plot(_times(minutes), values, ":", label=f"longest stall of the machine, {name}", linewidth=1)
