"""Live streams beyond what the machine can do: with admission the admitted ones never suffer; without it all do.

Streams come one after the other at real-time pace, each on the sound device and back on the socket, and overlap.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from clients import errors
from daemon import wire
from daemon.wire import Code
from flow.mel import Floats
from tests.bench.report import Result, cpu_name, percentiles_ms
from tests.bench.service import CHUNK_FRAMES, FRAME_S, utterance
from tests.e2e.running import Daemon, running_daemon, speech

OFFERED = (4, 8, 12, 16, 20, 24)
STAGGER_S = 0.061
"""Between two streams: a chunk and a third, so that chunks of different streams fall due at different times."""
MOST = 64


@dataclass
class Crowd:
    """What happened to streams that were offered at once."""

    late_s: list[float] = field(default_factory=list)
    underruns: int = 0
    refused: int = 0
    complete: int = 0


def crowd(daemon: Daemon, offered: int, mel: Floats) -> Crowd:
    """Offer `offered` streams of `mel`; returns when the last that was admitted has ended."""
    found, lock = Crowd(), threading.Lock()

    def one(number: int) -> None:
        with daemon.client(f"bench-{number}") as client:
            try:
                pieces, played = utterance(client, mel, ["device", "socket"], number)
            except errors.Refused as refusal:
                assert refusal.code == Code.AT_CAPACITY, refusal
                with lock:
                    found.refused += 1
                return
        with lock:
            found.late_s += [_late_s(piece) for piece in pieces if "net_start" in piece.stamps]
            found.underruns += played.underruns
            found.complete += played.total_samples == len(mel) * 256

    threads = [threading.Thread(target=one, args=(number,)) for number in range(offered)]
    for thread in threads:
        thread.start()
        time.sleep(STAGGER_S)
    for thread in threads:
        thread.join()
    return found


def _late_s(piece: wire.Audio) -> float:
    return (piece.stamps["gateway_out"] - piece.stamps["gateway_in"]) / 1e9


def overload(env: dict[str, str], seconds: float, offered: tuple[int, ...] = OFFERED) -> Iterator[Result]:
    """Each number of streams against a daemon that measured its capacity, and against one that admits everything."""
    mel = np.tile(speech(), (int(seconds / FRAME_S / len(speech())) + 1, 1))[: int(seconds / FRAME_S)]
    for admission, limits in (("on", []), ("off", [f"voices.glow.max_streams={MOST}"])):
        voices = f"server.max_streams={MOST}", "speaker.device=pulse", *limits
        with running_daemon(*voices, env=env) as daemon:
            with daemon.client("bench") as client:
                capacity = client.status().info["voices"]["glow"]["max_streams"]
            if admission == "on":
                yield Result("measured capacity", capacity, "streams", cpu_name(), {"chunk_frames": CHUNK_FRAMES})
            for number in offered:
                found = crowd(daemon, number, mel)
                settings = {"offered": number, "admission": admission, "seconds": seconds, "chunk_frames": CHUNK_FRAMES}
                yield from _rows(found, number - found.refused, settings)
                settle(daemon)


def _rows(found: Crowd, admitted: int, settings: dict[str, object]) -> Iterator[Result]:
    where, minutes = cpu_name(), float(str(settings["seconds"])) / 60
    spread = percentiles_ms(found.late_s)
    yield Result("offered streams: chunk p99", spread["p99"], "ms", where, settings, "", spread)
    rate = found.underruns / (admitted * minutes)
    yield Result("offered streams: underruns", rate, "per stream and minute", where, settings)
    yield Result("offered streams: refused", settings["offered"] - admitted, "streams", where, settings)  # type: ignore[operator]
    yield Result("offered streams: complete to the sample", found.complete, f"of {admitted}", where, settings)


def settle(daemon: Daemon, patience_s: float = 60.0) -> None:
    """Wait until the daemon has no streams and has recovered, so that the next number starts where this one did."""
    until_s = time.monotonic() + patience_s
    with daemon.client("bench") as client:
        while time.monotonic() < until_s:
            voice = client.status().info["voices"]["glow"]
            if not voice["open"] and not voice["level"]:
                return
            time.sleep(0.2)
    raise AssertionError(f"the daemon has not recovered within {patience_s:g} s: {voice}")
