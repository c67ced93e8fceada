"""`python -m tests.bench [network] [service] [soak] [--device cuda] ...`: measure, append to results.json, draw RESULTS.md."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.bench import network, ratios, service, soak
from tests.bench.report import Result, write
from tests.pulse import PulseServer


@contextlib.contextmanager
def sound_device() -> Iterator[dict[str, str]]:
    """A PortAudio device named pulse that plays to nobody; the environment in which it is found."""
    with tempfile.TemporaryDirectory() as directory, PulseServer(Path(directory)) as server:
        server.add_sink("glow")
        yield server.env


def measure(arguments: argparse.Namespace, env: dict[str, str]) -> Iterator[Result]:
    """The parts that were asked for, in order."""
    if "network" in arguments.parts:
        for threads in (1, torch.get_num_threads()) if arguments.device == "cpu" else (1,):
            yield from network.embedded(arguments.device, threads, arguments.runs)
        yield from network.exactness(arguments.device)
        yield from network.baseline(arguments.device, 1)
        yield from ratios.chunkwise(arguments.device, 1)
        yield from network.stock(arguments.device, torch.get_num_threads())
        yield from ratios.published_geometry(arguments.device, 1)
    if "service" in arguments.parts:
        yield from service.service(env, seconds=arguments.seconds, utterances=arguments.utterances)
    if "soak" in arguments.parts:
        yield from soak.soak(env, arguments.minutes)


def main() -> None:
    """Run, print each figure as it comes, keep them all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["network", "service", "soak"], help="network, service, soak")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what the network runs on")
    parser.add_argument("--runs", type=int, default=network.RUNS, help="calls for a latency figure")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the live streams")
    parser.add_argument("--utterances", type=int, default=200, help="utterances for the time to first audio")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the soak")
    arguments = parser.parse_args()
    results = []
    sound = {"service", "soak"} & set(arguments.parts)
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(sound_device()) if sound else {}
        for result in measure(arguments, env):
            results.append(result)
            verdict = {True: "met", False: "MISSED", None: ""}[result.met]
            print(f"{result.name:56} {result.value:10.4g} {result.unit:8} {result.goal:10} {verdict}", flush=True)
    write(results)


if __name__ == "__main__":
    main()
