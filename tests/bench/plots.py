"""The plots of RESULTS.md: which figures each shows, and how they are drawn.

A plot takes what results.json has, so it can be drawn again without measuring anything. SVG with its text as text: small,
and the same bytes for the same figures, so that a diff says what changed.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.report import Result

Curves = dict[str, list[tuple[float, float]]]
"""Points (x, y) of each curve, by its label."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves of the figures of some names: x is one setting, the label is made of others.

    With `series`, each figure is a curve of its own: its series of that name over its series named x.
    """

    name: str
    title: str
    caption: str
    figures: tuple[str, ...]
    x: str
    labels: Callable[["Result"], str | None]
    x_title: str
    y_title: str
    logarithmic: bool = False
    series: str = ""
    more: Callable[[Iterable[tuple["Result", dict[str, Any]]]], str] = lambda found: ""
    """What else the caption says, by the figures."""

    def file(self, device: str) -> str:
        """Name of the picture of a device, relative to RESULTS.md."""
        return f"plots/{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}-{self.name}.svg"

    def curves(self, found: Iterable[tuple["Result", dict[str, Any]]]) -> Curves:
        """The points that there are, by label, in order of x."""
        curves: Curves = {}
        if self.series:
            return {
                label: list(zip(result.series[self.x], result.series[self.series]))
                for result, _ in found
                if result.name in self.figures and (label := self.labels(result))
            }
        for result, _ in found:
            shown = result.name in self.figures and self.x in result.settings and math.isfinite(result.value)
            if shown and (label := self.labels(result)):
                curves.setdefault(label, []).append((float(result.settings[self.x]), result.value))
        return {label: sorted(points) for label, points in curves.items()}


def _one_stream(result: "Result") -> str | None:
    settings = result.settings
    return f"{settings['voice']}, {settings['threads']} threads" if settings["streams"] == 1 else None


SHOWN = {
    "offered streams: chunk p99": "p99",
    "offered streams: underruns": "underruns per stream and minute",
    "offered streams: refused": "streams refused",
}


def _admission(result: "Result") -> str:
    return f"{SHOWN[result.name]}, admission {result.settings['admission']}"


def _open_at_once(found: Iterable[tuple["Result", dict[str, Any]]]) -> str:
    """Of the day's streams, how many are open at the worst moment; "" if that was not measured."""
    for result, _ in found:
        if result.name == "simulated day: refused" and result.settings["rule"] == "fixed":
            most, streams = result.beside["most open"], result.settings["streams"]
            return f" {streams:,} streams are all of the day; at most {most:,.0f} of them are open at once."
    return ""


PLOTS = [
    Plot(
        "rtf",
        "real-time factor against chunk size",
        "Network time over audio time of one stream, by the frames in a chunk (one frame is 11.6 ms).",
        ("RTF per stream",),
        "chunk_frames",
        _one_stream,
        "frames in a chunk",
        "network time / audio time",
    ),
    Plot(
        "overload-latency",
        "latency against live streams, with overload",
        "From a chunk's arrival at the daemon to its samples' leaving for the sinks, of the admitted streams, by the live "
        "streams asked for. With admission, by measured capacity, those beyond it are refused; without, all are served.",
        tuple(SHOWN)[:1],
        "offered",
        _admission,
        "live streams asked for",
        "ms",
        True,
    ),
    Plot(
        "overload-underruns",
        "underruns and refusals against live streams, with overload",
        "How often the sound device found nothing to play, for each admitted stream and minute; how many streams were refused.",
        tuple(SHOWN)[1:],
        "offered",
        _admission,
        "live streams asked for",
        "",
    ),
    Plot(
        "context",
        "error against look-ahead of non-causal voices",
        "Whole-utterance power over the power of the difference between streamed and whole, by the look-ahead (context is three "
        "times as long, chunks have 8 frames). The causal voice that ships with glowd has no such error.",
        ("truncated context: SNR",),
        "look_ahead_frames",
        lambda result: str(result.settings["voice"]),
        "look-ahead in frames of 11.6 ms",
        "dB",
    ),
    Plot(
        "day",
        "streams, and engines' capacity, over a simulated day",
        "Streams that are open, and streams for which the engines that are ready have capacity, by the rule of scaling.",
        ("simulated day: streams", "simulated day: capacity"),
        "hour",
        lambda result: str(result.settings["rule"]),
        "hour",
        "streams",
        series="streams",
        more=_open_at_once,
    ),
    Plot(
        "rules",
        "refusals against cost, by rule of scaling",
        "Of a simulated day, with one parameter of each rule varied. Left is cheap, below is good.",
        ("simulated rule: refusals by cost",),
        "cost",
        lambda result: f"{result.settings['rule']}, {result.settings['start_s']:g} s to start",
        "engine-hours for a stream-hour",
        "streams refused, %",
        series="refused",
    ),
    Plot(
        "gateway",
        "latency against live streams in one simulated gateway",
        "From a chunk's arrival at the gateway to its samples' leaving it, with as many engines as the streams need.",
        ("simulated gateway: chunk p99",),
        "streams",
        lambda result: "p99",
        "live streams",
        "ms",
        True,
    ),
]  # fmt: skip


def draw(found: Sequence[tuple["Result", dict[str, Any]]], device: str, directory: Path) -> list[Path]:
    """Draw each plot that has figures of `device`; the files."""
    made = []
    for plot in PLOTS:
        if curves := plot.curves(found):
            path = directory / plot.file(device)
            path.parent.mkdir(exist_ok=True)
            _draw(plot, curves, device, path)
            made.append(path)
    return made


def _draw(plot: Plot, curves: Curves, device: str, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "glowd", "font.size": 9}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for label, points in curves.items():
            axes.plot(*zip(*points), marker="o", markersize=4 if len(points) < 24 else 0, label=label)
        axes.set(title=f"{plot.title}\n{device}", xlabel=plot.x_title, ylabel=plot.y_title)
        if not plot.series:
            axes.set_xticks(sorted({x for points in curves.values() for x, _ in points}))
        if plot.logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
