"""Live streams beyond what the machine can do: with admission the admitted ones never suffer; without it all do.

Streams come one after the other at real-time pace, each on the sound device and back on the socket, and overlap.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from glowd.clients import errors
from glowd.daemon import wire
from glowd.daemon.wire import Code
from glowd.flow.mel import Floats
from tests.bench.report import Result, cpu_name, percentiles_ms
from tests.bench.service import CHUNK_FRAMES, FRAME_S, utterance
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import speech

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
    """Each number of streams against a daemon that has measured its capacity, and against one that admits everything.

    Each gets a daemon of its own, so that none begins with what the one before has left: a degraded engine, say.
    """
    mel = np.tile(speech(), (int(seconds / FRAME_S / len(speech())) + 1, 1))[: int(seconds / FRAME_S)]
    for admission, limit in (("on", ""), ("off", f",max_streams={MOST}")):
        for number in offered:
            with running_daemon(
                f"server.max_streams={MOST}",
                f"server.max_peer_streams={MOST}",
                f'voices={{glow={{engine="waveglow"{limit}}}}}',
                "speaker.device=pulse",
                env=env,
            ) as daemon:
                with daemon.client("bench") as client:
                    capacity = client.status().info["voices"]["glow"]["max_streams"]
                found = crowd(daemon, number, mel)
            settings = {"offered": number, "admission": admission, "seconds": seconds, "chunk_frames": CHUNK_FRAMES}
            yield from _rows(found, number, seconds, capacity, settings)


def _rows(found: Crowd, offered: int, seconds: float, capacity: int, settings: dict[str, object]) -> Iterator[Result]:
    where, admitted = cpu_name(), offered - found.refused
    spread = percentiles_ms(found.late_s)
    yield Result("offered streams: chunk p99", spread["p99"], "ms", where, settings, "", spread)
    rate = found.underruns / (admitted * seconds / 60)
    yield Result("offered streams: underruns", rate, "per stream and minute", where, settings)
    yield Result("offered streams: refused", found.refused, "streams", where, settings, "", {"capacity": capacity})
    yield Result("offered streams: complete to the sample", found.complete, f"of {admitted}", where, settings)
