"""The gateway alone, between a fake engine and fake clients: how many streams one core serves, and how long messages stay.

Clients send at the pace of speech, the engine answers at once, so every process but the gateway has little to do. What the
gateway uses is its processor time, user and system, of all its threads, as the kernel counts it. Programs beside it on the same
core and its caches make that up to twice as much, and the times of messages many times as long: compare commits side by side,
one after the other and several times, or by what gateway_inside.py tells.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from tests.bench.gateway_inside import inside
from tests.bench.gateway_peers import HOP, RATE
from tests.bench.report import Result, cpu_name, scheduling
from tests.harness.gateway import ROOT, GatewayHarness, running_gateway
from tests.harness.waiting import WAIT_S

STREAMS = (16, 64, 128, 256, 400)
MOST = 1024
GOAL_STREAMS = 400
GOAL_MS = "<= 5"
AT_PACE = 0.95
"""Of the audio that is due, what must have been delivered. A gateway that has fallen behind serves no more than it did."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the gateway is given."""

    streams: int
    chunk_frames: int = 4
    sink: str = "socket"
    streams_per_client: int = 16
    gateways: int = 1
    """The clients are shared between so many."""
    watched: bool = False
    """Whether somebody reads the telemetry, as `glowctl top` does."""


def gateway(seconds: float, streams: tuple[int, ...] = STREAMS, quick: bool = False) -> Iterator[Result]:
    """By the number of streams; then one number by chunk size, by sink, and with a connection for each stream."""
    some = streams[min(1, len(streams) - 1)]
    yield from inside(seconds, some)
    for load in quick_loads(some) if quick else all_loads(streams, some):
        yield from measured(load, seconds)


def all_loads(streams: tuple[int, ...], some: int) -> tuple[Load, ...]:
    """Each number of streams, and what else is varied for some of them."""
    return (
        *(Load(number) for number in streams),
        Load(streams[-1], sink="null"),
        Load(some, chunk_frames=1),
        *(Load(streams[-1], frames) for frames in (8, 16)),
        Load(streams[-1], 16, watched=True),
        Load(some, streams_per_client=1),
        Load(2 * some, streams_per_client=some, gateways=2),
    )


def quick_loads(some: int) -> tuple[Load, ...]:
    """The same with everything varied at once."""
    return (Load(some), Load(2 * some, 1, "null", streams_per_client=1, gateways=2))


def measured(load: Load, seconds: float) -> Iterator[Result]:
    """A gateway of its own for each load, so that none begins with what the one before has left."""
    limits = (
        f"server.{name}={MOST}" for name in ("max_clients", "max_streams", "max_peer_clients", "max_peer_streams")
    )
    rates = (f"server.{name}=1000000" for name in ("max_peer_messages_s", "max_peer_requests_s"))
    settings = (*limits, *rates)
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(running_gateway(*settings)) for _ in range(load.gateways)]
        for one in served:
            stack.enter_context(peer("engine", one.run_dir))
            one.wait_for("ready", lambda found: found.voices["glow"].ready)
            if load.watched:
                stack.enter_context(watching(f"ipc://{one.run_dir}/top.ipc"))
        asked = (load.streams, load.streams_per_client, load.chunk_frames, load.sink, seconds)
        clients = stack.enter_context(peer("clients", ",".join(one.endpoint for one in served), *asked))
        assert line(clients) == {"begun": True}
        before_s = cpu_of(served)
        seen = line(clients)
        used_s = {name: used - before_s[name] for name, used in cpu_of(served).items()}
    yield from figures(load, seconds, seen, used_s)


def figures(load: Load, seconds: float, seen: dict[str, Any], used_s: dict[str, float]) -> Iterator[Result]:
    """What a run says. A second of a stream is a second of its audio that its sink has taken."""
    assert not seen["errors"], seen["errors"][:3]
    where, settings = cpu_name(), {"streams": load.streams, "chunk_frames": load.chunk_frames, "sink": load.sink}
    settings |= {"streams_per_client": load.streams_per_client, "seconds": seconds, "scheduling": scheduling()}
    settings |= {"gateways": load.gateways} if load.gateways > 1 else {}
    settings |= {"watched": True} if load.watched else {}
    stream_s = seen["delivered_samples"] / RATE
    beside = {f"{name}_ms": 1000 * used / stream_s for name, used in used_s.items()}
    beside["pace"] = seen["delivered_samples"] / HOP / seen["frames_due"]
    ms = beside["process_ms"]
    yield Result("gateway: processor time for a second of a stream", ms, "ms", where, settings, "", beside)
    goal = f">= {GOAL_STREAMS}" if load.streams >= GOAL_STREAMS else ""
    served = 1000 / ms if beside["pace"] >= AT_PACE else min(1000 / ms, load.streams * beside["pace"])
    yield Result("gateway: streams that one core serves", served, "streams", where, settings, goal)
    for name, times_ns in (("to engine", seen["to_engine_ns"]), ("to client", seen["from_engine_ns"])):
        if times_ns:
            p50, p99 = np.percentile(times_ns, (50, 99)) / 1e6
            what = "frames, client to engine" if name == "to engine" else "audio, engine to client"
            yield Result(f"gateway: {what}, p99", p99, "ms", where, settings, GOAL_MS, {"p50": p50})


@contextlib.contextmanager
def watching(telemetry: str) -> Iterator[None]:
    """Somebody subscribes, and the newest snapshot is all that waits."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    with socket:
        socket.setsockopt(zmq.CONFLATE, 1)
        socket.connect(telemetry)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        yield
        assert socket.poll(1000), "no telemetry came"


@contextlib.contextmanager
def peer(*words: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of gateway_peers.py, ended at the end."""
    command = [sys.executable, "-m", "tests.bench.gateway_peers", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)


def line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next line of a peer."""
    assert process.stdout is not None
    text = process.stdout.readline()
    assert text, "a peer has ended early; its error is above"
    found: dict[str, Any] = json.loads(text)
    return found


def cpu_of(served: list[GatewayHarness]) -> dict[str, float]:
    """Processor time of these gateways together."""
    times = [cpu_s(one.process.pid) for one in served]
    return {name: sum(one[name] for one in times) for name in times[0]}


def cpu_s(pid: int) -> dict[str, float]:
    """Processor time of a process so far, user and system; and of its first thread, which runs the loop."""
    threads = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            threads[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return {"process": sum(threads.values()), "loop": threads[str(pid)]}
