"""Ten minutes on a sound device: no underrun, and no process that grows."""

import threading
import time
from collections.abc import Iterator

import numpy as np

from tests.bench.report import Result, cpu_name
from tests.bench.service import CHUNK_FRAMES, utterance
from tests.harness.daemon import Daemon, rss_bytes, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import Stalls

SAMPLE_S = 5.0


def soak(env: dict[str, str], minutes: float, streams: int = 1) -> Iterator[Result]:
    """Streams at real-time pace on the device `pulse`, sentence after sentence; memory of each role meanwhile."""
    with running_daemon("speaker.device=pulse", env=env) as daemon, Stalls() as stalls:
        end_s = time.monotonic() + 60 * minutes
        underruns, sentences = [0] * streams, [0] * streams

        def speak(number: int) -> None:
            with daemon.client(f"soak-{number}") as client:
                while time.monotonic() < end_s:
                    _, played = utterance(client, speech(), ["device"], number)
                    underruns[number] += played.underruns
                    sentences[number] += 1

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(streams)]
        for thread in threads:
            thread.start()
        memory = watch(daemon, end_s)
        for thread in threads:
            thread.join(120)
    settings = {"minutes": minutes, "streams": streams, "sentences": sum(sentences), "chunk_frames": CHUNK_FRAMES}
    beside = {"longest stall ms": 1000 * stalls.longest_s}
    yield Result("soak: underruns on the device", sum(underruns), "", cpu_name(), settings, "<= 0", beside)
    for role, sizes in memory.items():
        yield Result(
            f"soak: growth of the {role}", slope_mb_per_minute(sizes), "MB/min", cpu_name(), settings, "<= 0.1"
        )


def watch(daemon: Daemon, end_s: float) -> dict[str, list[int]]:
    """Resident bytes of each role every SAMPLE_S seconds until the end."""
    pids = daemon.role_pids()
    sizes: dict[str, list[int]] = {role: [] for role in pids}
    while time.monotonic() < end_s:
        time.sleep(SAMPLE_S)
        for role, pid in pids.items():
            sizes[role].append(rss_bytes(pid))
    return sizes


def slope_mb_per_minute(sizes: list[int]) -> float:
    """Growth by least squares over the second half: the first is warm-up."""
    half = np.asarray(sizes[len(sizes) // 2 :], np.float64) / 1e6
    minutes = np.arange(len(half)) * SAMPLE_S / 60
    return float(np.polyfit(minutes, half, 1)[0]) if len(half) > 2 else float("nan")
