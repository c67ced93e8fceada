"""`python -m tests.bench [PART...]`: measure, append to results.json, draw RESULTS.md and its plots.

Each part can run alone: what it does not measure keeps its newest value. `--quick` does as little of each part as shows
that it works; its figures say nothing, so they are kept only where --out says.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.bench import (
    backends,
    context,
    fronts,
    gateway,
    network,
    overload,
    published,
    ratios,
    report,
    screen_reader,
    service,
    soak,
)
from tests.bench.report import Result
from tests.bench.simulation import figures
from tests.harness.pulse import sound_device

CROWD = 10
"""Live streams that are played at once for half of the soak's time."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything is measured."""

    runs: int
    seconds: float
    utterances: int
    minutes: float
    quick: bool
    measured: Path = report.HERE
    """Where the figures are with which simulations begin."""


def measure_network(device: str, sizes: Sizes) -> Iterator[Result]:
    """The embedded voice by chunk size and batch, its exactness, the plain inversion, and the published geometry."""
    most = torch.get_num_threads()
    for threads in dict.fromkeys((1, most)) if device == "cpu" else (1,):
        yield from network.embedded(device, threads, sizes.runs)
    if not sizes.quick:
        yield from network.without_network(sizes.runs)
        yield from network.exactness(device)
        yield from network.baseline(device, 1)
        yield from ratios.chunkwise(device, 1)
        yield from network.stock(device, most)
        yield from ratios.published_geometry(device, 1)


def measure_published(device: str, sizes: Sizes) -> Iterator[Result]:
    """Utterances of 880 and 895 frames at batch 1 and 8, beside the plain inversion."""
    if sizes.quick:
        return published.published(device, 1, 1, ((40, 2),))
    return published.published(device, 1)


def measure_backends(device: str, sizes: Sizes) -> Iterator[Result]:
    """What can run the flows on the device, side by side."""
    return backends.backends(device, min(sizes.runs, 300), 1 if sizes.quick else None)


def measure_fronts(env: dict[str, str], sizes: Sizes) -> Iterator[Result]:
    """What HTTP, WebSocket, Wyoming and speech-dispatcher add to the first audio."""
    yield from fronts.fronts(sizes.utterances)
    yield from screen_reader.screen_reader(env, sizes.utterances)


def measure_gateway(device: str, sizes: Sizes) -> Iterator[Result]:
    """The gateway alone, between fakes."""
    return gateway.gateway(min(sizes.seconds, 8), (4,) if sizes.quick else gateway.STREAMS, sizes.quick)


def measure_context(device: str, sizes: Sizes) -> Iterator[Result]:
    """Error against look-ahead of non-causal voices."""
    return context.context(24, 1) if sizes.quick else context.context()


def with_sound(
    measure: Callable[[dict[str, str], Sizes], Iterator[Result]],
) -> Callable[[str, Sizes], Iterator[Result]]:
    """A part that plays on a sound device of its own."""

    def measured(device: str, sizes: Sizes) -> Iterator[Result]:
        with sound_device() as env:
            yield from measure(env, sizes)

    return measured


PARTS: dict[str, Callable[[str, Sizes], Iterator[Result]]] = {
    "network": measure_network,
    "published": measure_published,
    "backends": measure_backends,
    "context": measure_context,
    "gateway": measure_gateway,
    "service": with_sound(lambda env, sizes: service.service(env, sizes.seconds, sizes.utterances)),
    "fronts": with_sound(measure_fronts),
    "overload": with_sound(
        lambda env, sizes: overload.overload(env, min(sizes.seconds, 12), (2,) if sizes.quick else overload.OFFERED)
    ),
    "soak": with_sound(lambda env, sizes: soak.soak(env, sizes.minutes)),
    "scale": lambda device, sizes: figures.scale(sizes.measured),
    "simulated-chunks": lambda device, sizes: figures.chunks(sizes.quick, sizes.measured),
    "simulated-days": lambda device, sizes: figures.whole_days(sizes.quick, sizes.measured),
    "crowd": with_sound(lambda env, sizes: soak.soak(env, sizes.minutes / 2, CROWD)),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; parts that do not exist are refused."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all, if none is named")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what the network runs on")
    parser.add_argument("--runs", type=int, default=network.RUNS, help="calls for a latency figure")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the live streams")
    parser.add_argument("--utterances", type=int, default=200, help="utterances for the time to first audio")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the soak; a crowd speaks half as long")
    parser.add_argument("--quick", action="store_true", help="only show that it works; keeps nothing without --out")
    parser.add_argument("--out", type=Path, help="directory of results.json and RESULTS.md, if not tests/bench")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw RESULTS.md and its plots again")
    given = parser.parse_args(argv)
    if wrong := [part for part in given.parts if part not in PARTS]:
        parser.error(f"there is no part {wrong[0]!r}; the parts are {', '.join(PARTS)}")
    return given


def with_reckoned(parts: Iterable[str]) -> list[str]:
    """The parts, and what is reckoned from the figures of one of them, and costs nothing."""
    asked = list(parts)
    return [*asked, "scale"] if "gateway" in asked and "scale" not in asked else asked


def main(argv: Sequence[str] | None = None) -> None:
    """Run, print each figure as it comes, keep them all."""
    given = arguments(argv)
    directory = given.out or (None if given.quick else report.HERE)
    if given.draw:
        report.draw(directory or report.HERE)
        return
    measured = directory or report.HERE
    sizes = Sizes(given.runs, given.seconds, given.utterances, given.minutes, given.quick, measured)
    if given.quick:
        sizes = Sizes(runs=5, seconds=1, utterances=2, minutes=0.1, quick=True, measured=measured)
    before, results = report.conditions(), list[Result]()
    for part in with_reckoned(given.parts or PARTS):
        for result in PARTS[part](given.device, sizes):
            results.append(result)
            verdict = {True: "met", False: "MISSED", None: ""}[result.met]
            print(f"{result.name:56} {result.value:10.4g} {result.unit:8} {result.goal:10} {verdict}", flush=True)
        if directory:  # after each part, so that what was measured is kept whatever befalls the next
            report.write(results, before, directory)


if __name__ == "__main__":
    main()
