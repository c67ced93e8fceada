"""Endless streams by clocks that differ from that of the sound device: latency, drift and gaps in each second, and a verdict.

The daemon, its speaker and the sound server are real; the engine makes tones, so that a sample that is lost or comes twice is
heard in the recording of the sink. Rules: `verdict` is pure, and is tried on made-up runs.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glowd.daemon.wire.telemetry import Snapshot
from tests.bench.report import Result, cpu_name, scheduling
from tests.harness.drifting import (
    FOLLOWED_S,
    STEPS,
    WITHIN_MS,
    Look,
    clocked_clients,
    held_ms,
    known_s,
    looks_of,
    off_ms,
    sounding,
    steps_off,
    tone_daemon,
    watch,
)
from tests.harness.pulse import PulseServer
from tests.soak.sentinel import Sentinels

MAX_MINUTES = 60
"""An utterance lasts no longer (server.max_utterance_s) ..."""
OF_IT = 0.999
"""... and by the clock of the fastest client it is longer."""

Tell = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Run:
    """What was found: looks at each stream, its samples that were sent and played, and how far the recording is from tones."""

    looks: Mapping[str, Sequence[Look]]
    sent_samples: Mapping[str, int]
    played_samples: Mapping[str, int]
    steps_off: float


def figures(minutes: float, settings: Sequence[str], tell: Tell) -> list[Result]:
    """The run, and what it says. Each second is told as a map."""
    with tempfile.TemporaryDirectory(prefix="glowd-soak-") as name, PulseServer(Path(name)) as pulse:
        pulse.add_sink("glow")
        found = play(pulse, minutes, settings, tell)
    beside = {"minutes": minutes, "set": " ".join(settings), "scheduling": scheduling()}
    return list(verdict(found, beside))


def play(pulse: PulseServer, minutes: float, settings: Sequence[str], tell: Tell) -> Run:
    """Streams that last for so many minutes."""
    with (
        tone_daemon(pulse.env, *settings) as daemon,
        daemon.client() as glow,
        pulse.record("glow") as recording,
        Sentinels() as sentinels,
        clocked_clients(daemon.endpoint) as clients,
    ):
        seconds: list[tuple[float, Snapshot]] = []
        for at_s, snapshot in watch(glow, OF_IT * 60 * minutes):
            seconds.append((at_s, snapshot))
            stalls_ms = sentinels.longest_ms(time.monotonic() - 1, time.monotonic())
            tell(second(at_s, snapshot, stalls_ms))
        for client in clients:
            client.end()
        spoken = {client.name: client.spoken() for client in clients}
        heard = sounding(np.memmap(recording.path, np.float32, "r"))
        sent = {name: one.sent_samples for name, one in spoken.items()}
        return Run(looks_of(seconds), sent, {name: one.samples for name, one in spoken.items()}, steps_off(heard))


def second(at_s: float, snapshot: Snapshot, stalls_ms: tuple[float, float]) -> dict[str, Any]:
    """A line of seconds.jsonl."""
    streams = {name: asdict(Look.at(at_s, stream)) for name, stream in snapshot.streams.items()}
    real_ms, plain_ms = stalls_ms
    return {
        "at_s": round(at_s, 2), "realtime_stall_ms": round(real_ms, 1), "plain_stall_ms": round(plain_ms, 1),
        "streams": streams,
    }  # fmt: skip


def verdict(run: Run, settings: dict[str, Any]) -> Iterator[Result]:
    """Every figure with its bound."""

    def result(what: str, value: float, unit: str, goal: str, beside: dict[str, float] | None = None) -> Result:
        return Result(f"drift: {what}", value, unit, cpu_name(), settings, goal, beside or {})

    for name, looks in run.looks.items():
        what = f"latency of a client at {name}, by how much it differed once its clock was followed"
        since_s = known_s(looks) + FOLLOWED_S
        beside = {"held ms": held_ms(looks), "from s": since_s, "ppm at last": looks[-1].drift_ppm or 0.0}
        yield result(what, off_ms(looks), "ms", f"<= {WITHIN_MS:g}", beside)
    yield result("gaps", sum(looks[-1].underruns for looks in run.looks.values()), "", "<= 0")
    skipped_ms = sum(looks[-1].skipped_ms for looks in run.looks.values())
    yield result("left out to catch up", skipped_ms, "ms", "<= 0")
    lost = sum(abs(sent - run.played_samples[name]) for name, sent in run.sent_samples.items())
    yield result("samples that were not played", lost, f"of {sum(run.sent_samples.values())}", "<= 0")
    yield result("what was heard differs from the tones by", run.steps_off, "steps", f"<= {STEPS:g}")


def draw(seconds: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Latency against that of the first minute, drift, and stalls of the machine, into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    latency, drift, stalls = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title)
    at = [one["at_s"] / 60 for one in seconds]
    for name in dict.fromkeys(name for one in seconds for name in one["streams"]):
        looks = [Look(**one["streams"][name]) for one in seconds if name in one["streams"]]
        times = [look.at_s / 60 for look in looks]
        known = [np.nan if look.latency_ms is None else look.latency_ms for look in looks]
        latency.plot(times, np.array(known) - held_ms(looks), label=f"client at {name}", linewidth=1)
        latency.axvline((known_s(looks) + FOLLOWED_S) / 60, linewidth=1, linestyle=":")
        drift.plot(times, [look.drift_ppm for look in looks], label=f"client at {name}", linewidth=1)
    latency.axhspan(-WITHIN_MS, WITHIN_MS, alpha=0.1)
    for name in ("realtime", "plain"):
        stalls.plot(at, [one[f"{name}_stall_ms"] for one in seconds], label=f"stall, {name}", linewidth=1)
    for axes, what in ((latency, "latency, ms beyond held"), (drift, "drift, ppm"), (stalls, "ms")):
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    stalls.set_xlabel("minutes")
    figure.savefig(path, dpi=110)
