"""The figures of the simulations, for RESULTS.md: `make bench PARTS="scale simulated-chunks simulated-days"`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glowd.daemon.cluster.demand import Committed, Fixed, Predicted, Refusals, Rule
from tests.bench import report
from tests.bench.report import Result
from tests.bench.simulation.curve import CostCurve
from tests.bench.simulation.day import Outcome, Setup, Simulation
from tests.bench.simulation.inputs import (
    CHUNK_FRAMES,
    CPU,
    GATEWAY,
    H100,
    RECORDED,
    SAME_MACHINE,
    EngineFigures,
    GatewayFigures,
    LinkFigures,
)
from tests.bench.simulation.load import HOUR_S, Day, Peak
from tests.bench.simulation.scale import TAKEN, first_short, parts, to_buy
from tests.bench.simulation.window import Window, WindowOutcome, WindowSetup

PEAK_S = 20 * HOUR_S
SERIES_S = 1800.0
QUICK = Day(streams=150, seconds=1200.0, stream_s=200.0, peaks=(Peak(0.15, 4.0, 0.06),))
SCALES = (100, 1_000, 10_000, 50_000)
OFFERED = (8, 16, 20, 24, 28)
NEW_MACHINE_S = 120.0
"""Until an engine is ready where its machine has to be started first: an assumption."""


STREAM_MS = "gateway: processor time for a second of a stream"


def chunks(quick: bool, measured: Path) -> Iterator[Result]:
    """What happens chunk by chunk; `quick`: little of each. `measured`: where the figures of the gateway are."""
    gateway = gateway_figures(measured)
    yield from recorded(OFFERED[:1] if quick else OFFERED, 2.0 if quick else 6.0)
    yield from one_gateway(gateway, (0.1,) if quick else (0.1, 0.4, 0.7, 0.9, 1.0, 1.1), 1.0 if quick else 3.0)
    yield from lost_engine(gateway, 5.0 if quick else 8.0)
    yield from large_engine((8,) if quick else (256, 512, 768, 1024), 1.0 if quick else 2.0)


def whole_days(quick: bool, measured: Path) -> Iterator[Result]:
    """A day with its two peaks; `quick`: minutes of it."""
    yield from days(QUICK if quick else Day(), 10 if quick else 100, gateway_figures(measured))
    yield from rules(QUICK if quick else Day(streams=5_000), 4 if quick else 10, quick)


def gateway_figures(measured: Path) -> GatewayFigures:
    """What the newest run of the part `gateway` says of a core that is full, with the most streams; else that of inputs.py."""
    for run in reversed(report.load_runs(measured)):
        found = {row["settings"]["streams"]: row["value"] for row in run["results"] if _is_usual(row)}
        if found:
            return dataclasses.replace(GATEWAY, stream_ms=found[max(found)])
    return GATEWAY


def _is_usual(row: dict[str, Any]) -> bool:
    """Whether a row is of one gateway with the chunks and the sink that the simulations have."""
    settings = row["settings"]
    is_usual = row["name"] == STREAM_MS and (settings["chunk_frames"], settings["sink"]) == (CHUNK_FRAMES, "socket")
    return is_usual and "gateways" not in settings


def _floats(**values: float) -> dict[str, float]:
    """Numbers of any kind as they stand in JSON."""
    return {name.replace("_", " "): float(value) for name, value in values.items()}


def _where(engine: EngineFigures) -> str:
    return f"Simulated: {engine.name}"


# ------------------------------------------------------------------------ what is short


def scale(measured: Path) -> Iterator[Result]:
    """How many live streams one of each part serves, and how many of it some numbers of streams need."""
    gateway = gateway_figures(measured)
    for engine in (CPU, H100):
        found = parts(engine, gateway)
        short = first_short(found, engine)
        for part in found:
            settings = {"part": part.what, "first of the gateway's to be short": part is short, "remedy": part.remedy}
            needed = {f"for {streams}": part.needed(streams) for streams in SCALES}
            yield Result("scale: live streams for one", part.serves, "streams", _where(engine), settings, "", needed)
        for streams in SCALES:
            settings = {"live streams": streams, "taken": TAKEN, "price of it": engine.price, "of a core": CPU.price}
            bought = to_buy(streams, found, engine, CPU.price)
            count, unit = bought.pop(engine.name), f"{engine.name}s"
            yield Result("scale: what live streams need", count, unit, _where(engine), settings, "", bought)


# ------------------------------------------------------------------------ chunk by chunk


def _chunks(name: str, found: WindowOutcome, engine: EngineFigures, settings: dict[str, Any]) -> Iterator[Result]:
    spread = report.percentiles_ms(found.tally.chunk_s)
    causes = {cause: 60 * count / found.tally.speech_s for cause, count in sorted(found.tally.underruns.items())}
    busy = _floats(gateway_busy=found.gateway_busy, engine_busy=max(found.engine_busy), level=max(found.levels))
    yield Result(f"{name}: chunk p99", spread["p99"], "ms", _where(engine), settings, "", spread | busy)
    rate, unit = found.underruns_per_minute, "per stream and minute"
    yield Result(f"{name}: underruns", rate, unit, _where(engine), settings, "", causes)


def recorded(offered: tuple[int, ...], seconds: float) -> Iterator[Result]:
    """The overload run of RESULTS.md, without admission, with the times of a step that were measured on that machine."""
    for streams in offered:
        setup = WindowSetup(
            figures=RECORDED, streams=(streams,), seconds=seconds, pause_s=0.0, utterance_s=600.0,
            clients=SAME_MACHINE, machines=SAME_MACHINE, gateway_us=GATEWAY.message_us,
        )  # fmt: skip
        settings = {"offered": streams, "admission": "off", "seconds": seconds, "chunk_frames": 4}
        yield from _chunks("simulated overload", Window(setup).run(), RECORDED, settings)


def one_gateway(gateway: GatewayFigures, shares: tuple[float, ...], seconds: float) -> Iterator[Result]:
    """One gateway with more and more full engines, whose streams all speak: they take these shares of its core."""
    each = CostCurve(CPU).capacity().streams
    for number in (max(1, round(share * 1000 / gateway.stream_ms / each)) for share in shares):
        setup = WindowSetup(
            streams=(each,) * number, seconds=seconds, pause_s=0.0, clients=LinkFigures(1.0, 0.2), prefill_s=0.1,
            gateway_us=gateway.message_us,
        )  # fmt: skip
        settings = {
            "streams": each * number,
            "engines": number,
            "seconds": seconds,
            "stream_ms": round(gateway.stream_ms, 2),
        }
        yield from _chunks("simulated gateway", Window(setup).run(), CPU, settings)


def lost_engine(gateway: GatewayFigures, seconds: float) -> Iterator[Result]:
    """One of three engines is lost while its streams speak."""
    for is_silent in (False, True):
        setup = WindowSetup(
            streams=(7, 7, 7), seconds=seconds, pause_s=0.0, crash_at_s=1.0, is_silent=is_silent,
            gateway_us=gateway.message_us, clients=SAME_MACHINE,
        )  # fmt: skip
        found = Window(setup).run()
        settings = {"engines": 3, "streams": 21, "lost": "its machine" if is_silent else "its process"}
        beside = _floats(moved=found.moved, failed=found.tally.failed, underruns=sum(found.tally.underruns.values()))
        gap_s = sum(found.tally.missing_s.values()) / max(1, found.moved)
        yield Result("simulated loss: gap of each stream of the engine", gap_s, "s", _where(CPU), settings, "", beside)


def large_engine(streams: tuple[int, ...], seconds: float) -> Iterator[Result]:
    """One H100, with what its process needs for each chunk."""
    for number in streams:
        setup = WindowSetup(
            figures=H100, streams=(number,), seconds=seconds, pause_s=0.0, clients=SAME_MACHINE, gateway_us=0.0
        )
        settings = {"streams": number, "seconds": seconds, "host_us": H100.host_us}
        yield from _chunks("simulated engine", Window(setup).run(), H100, settings)


# ---------------------------------------------------------------------------- a day


def days(day: Day, engines: int, gateway: GatewayFigures) -> Iterator[Result]:
    """A day by each rule: refusals, cost, moves, and underruns at the evening's peak."""
    each = CostCurve(CPU).capacity().streams
    asked: dict[str, Rule] = {
        "fixed": Fixed(engines * each), "committed 0.8": Committed(0.8), "refusals": Refusals(), "predicted": Predicted()
    }  # fmt: skip
    for label, rule in asked.items():
        first = engines if label == "fixed" else 0
        setup = Setup(figures=CPU, rule=rule, day=day, engines=engines, cells=10, at_first=first)
        peak_s = min(PEAK_S, day.seconds / 2)
        found = Simulation(setup).run((peak_s,))
        settings = _settings(label, setup)
        yield from _day(found, settings)
        yield from _peak(found.loads[peak_s], gateway, settings)
        if label == "fixed":  # the largest cluster there may be: what everybody asked for
            yield _series("simulated day: streams", "open streams", found, 1)
        else:
            yield _series("simulated day: capacity", label, found, 2)


def _settings(label: str, setup: Setup) -> dict[str, Any]:
    start_s = setup.start_s or setup.figures.start_s
    return {
        "rule": label, "engines": setup.engines, "gateways": setup.cells, "streams": setup.day.streams,
        "start_s": start_s, "crash_h": setup.crash_h, "seed": setup.seed,
    }  # fmt: skip


def _day(found: Outcome, settings: dict[str, Any]) -> Iterator[Result]:
    counts, where = found.counts, _where(CPU)
    price = _floats(price=found.cost * CPU.price, starts=counts.starts, most_engines=max(found.timeline.column(3)))
    percent = 100 * found.refused / found.offered
    some = _floats(offered=found.offered, refused=found.refused, most_open=max(found.timeline.column(1)))
    moves = _floats(
        drain=counts.moves_by_drain, loss=counts.moves_by_crash, losses=counts.crashes,
        utterances_interrupted=counts.interrupted,
    )  # fmt: skip
    total = counts.moves_by_drain + counts.moves_by_crash
    yield Result("simulated day: engine-hours for a stream-hour", found.cost, "h/h", where, settings, "", price)
    yield Result("simulated day: refused", percent, "%", where, settings, "", some)
    yield Result("simulated day: moves", total, "moves", where, settings, "", moves)


def _peak(loads: list[int], gateway: GatewayFigures, settings: dict[str, Any]) -> Iterator[Result]:
    """Ten seconds of some of the engines as they were at the peak; half of the streams speak."""
    some = tuple(int(load) for load in np.random.default_rng(1).choice(loads, size=min(4, len(loads)), replace=False))
    found = Window(WindowSetup(streams=some, seconds=10.0, gateway_us=gateway.message_us)).run()
    sampled = settings | {"sampled engines": len(some), "their streams": sum(some)}
    yield from _chunks("simulated peak", found, CPU, sampled)


def _series(name: str, label: str, found: Outcome, column: int) -> Result:
    rows = found.timeline.rows[:: max(1, round(SERIES_S / 10))]
    series = {"hour": [round(row[0] / HOUR_S, 3) for row in rows], "streams": [float(row[column]) for row in rows]}
    return Result(name, max(series["streams"]), "streams at most", _where(CPU), {"rule": label}, "", {}, series)


def rules(day: Day, engines: int, quick: bool) -> Iterator[Result]:
    """Refusals and cost of each rule by its parameter, for a tenth of the day's load on one gateway."""
    families: list[tuple[str, list[Rule], float]] = [
        ("committed", [Committed(target) for target in (0.6, 0.7, 0.8, 0.9, 1.0)], 0.0),
        ("predicted", [Predicted(deviations=deviations) for deviations in (0.0, 1.0, 2.0, 3.0)], 0.0),
        ("refusals", [Refusals(growth) for growth in (1.1, 1.25, 1.5)], 0.0),
        ("committed", [Committed(target) for target in (0.7, 0.8, 0.9)], NEW_MACHINE_S),
        ("predicted", [Predicted(deviations=deviations) for deviations in (0.0, 2.0)], NEW_MACHINE_S),
    ]
    for label, varied, start_s in families[:1] if quick else families:
        points = []
        for rule in varied[:1] if quick else varied:
            setup = Setup(figures=CPU, rule=rule, day=day, engines=engines, start_s=start_s)
            found = Simulation(setup).run()
            yield from list(_day(found, _settings(str(rule), setup)))[:2]
            points.append((found.cost, 100 * found.refused / found.offered))
        series = {"cost": [cost for cost, _ in points], "refused": [refused for _, refused in points]}
        settings = {"rule": label, "start_s": start_s or CPU.start_s}
        best = min(refused for _, refused in points)
        yield Result("simulated rule: refusals by cost", best, "% at best", _where(CPU), settings, "", {}, series)
