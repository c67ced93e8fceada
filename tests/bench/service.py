"""The running daemon: time to first audio, transport, live streams at real-time pace, memory."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.bench.report import Result, cpu_name, percentiles_ms
from tests.harness.daemon import Daemon, rss_bytes, running_daemon
from tests.harness.mels import speech

CHUNK_FRAMES = 4
FRAME_S = 256 / 22050


def paced(stream_send: object, mel: Floats, chunk_frames: int, start_s: float) -> None:
    """Send frames as a real-time TTS would: chunk after chunk, each at its own time."""
    assert callable(stream_send)
    for index, at in enumerate(range(0, len(mel), chunk_frames)):
        time.sleep(max(0.0, start_s + index * chunk_frames * FRAME_S - time.monotonic()))
        stream_send(mel[at : at + chunk_frames])


def utterance(client: Client, mel: Floats, sinks: list[str], seed: int) -> tuple[list[wire.Audio], wire.Played]:
    """One utterance at real-time pace; the audio that came back on the socket, and its ending."""
    pieces: list[wire.Audio] = []
    with client.open(sinks=sinks, seed=seed) as stream:
        if "socket" in sinks:
            reader = threading.Thread(target=lambda: pieces.extend(stream.audio(60)))
            reader.start()
        paced(stream.send, mel, CHUNK_FRAMES, time.monotonic())
        played = stream.wait_played(60)
        if "socket" in sinks:
            reader.join(60)
    assert isinstance(played, wire.Played)
    return pieces, played


def first_audio(daemon: Daemon, utterances: int) -> Iterator[Result]:
    """TTFA and the time outside the network, from the stamps of every chunk of many short utterances."""
    mel, ttfa, outside = speech()[:24], [], []
    with daemon.client("bench") as client:
        for seed in range(utterances):
            pieces, _ = utterance(client, mel, ["socket"], seed)
            stamps = [piece.stamps for piece in pieces if "net_start" in piece.stamps]
            ttfa.append((stamps[0]["gateway_out"] - stamps[0]["gateway_in"]) / 1e9)
            outside += [_outside_s(s, before["net_end"]) for before, s in zip([{"net_end": 0}, *stamps], stamps)]
    settings = {"chunk_frames": CHUNK_FRAMES, "utterances": utterances, "pace": "real time"}
    spread = percentiles_ms(ttfa)
    yield Result("TTFA p50, first chunk in to first sample offered", spread["p50"], "ms", cpu_name(), settings, "<= 40")
    yield Result("TTFA p99, first chunk in to first sample offered", spread["p99"], "ms", cpu_name(), settings, "<= 80")
    spread = percentiles_ms(outside)
    settings = settings | {"chunks": len(outside)}
    yield Result("gateway and transport p50, network excluded", spread["p50"], "ms", cpu_name(), settings)
    yield Result("gateway and transport p99, network excluded", spread["p99"], "ms", cpu_name(), settings, "<= 3")


def _outside_s(stamps: dict[str, int], network_free_ns: int) -> float:
    # A message that arrives while the network computes the chunk before it waits for the network, not for the transport.
    begin_ns = max(stamps["gateway_in"], min(network_free_ns, stamps["engine_in"]))
    return ((stamps["engine_in"] - begin_ns) + (stamps["gateway_out"] - stamps["net_end"])) / 1e9


def live_streams(daemon: Daemon, streams: int, seconds: float, sink: str) -> Iterator[Result]:
    """Streams at real-time pace at once: underruns as the speaker counts them, and chunks later than their playing time."""
    mel = np.tile(speech(), (int(seconds / (len(speech()) * FRAME_S)) + 1, 1))[: int(seconds / FRAME_S)]
    endings: dict[int, wire.Played] = {}
    late: list[float] = []

    def one(number: int) -> None:
        with daemon.client(f"bench-{number}") as client:
            pieces, endings[number] = utterance(client, mel, [sink, "socket"], number)
            late.extend(
                (p.stamps["gateway_out"] - p.stamps["gateway_in"]) / 1e9 for p in pieces if "net_start" in p.stamps
            )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(streams)]
    for number, thread in enumerate(threads):
        thread.start()
        time.sleep(0.3 + 0.011 * number)
    for thread in threads:
        thread.join(seconds + 120)
    settings = {"streams": streams, "seconds": seconds, "sink": sink, "chunk_frames": CHUNK_FRAMES}
    underruns = sum(ending.underruns for ending in endings.values()) if len(endings) == streams else float("nan")
    samples = {ending.total_samples for ending in endings.values()}
    yield Result("underruns", underruns, "", cpu_name(), settings, "<= 0")
    yield Result(
        "streams complete to the sample",
        streams * (samples == {len(mel) * 256}),
        "",
        cpu_name(),
        settings,
        f">= {streams}",
    )
    spread = percentiles_ms(late)
    yield Result("chunk in to samples offered p99", spread["p99"], "ms", cpu_name(), settings)


def random_chunkings(daemon: Daemon, count: int) -> Iterator[Result]:
    """Utterances of random length in random chunks, as fast as credit allows: every one exactly frames x 256 samples."""
    rng, wrong, source = np.random.default_rng(1), 0, speech()
    with daemon.client("bench") as client, client.open(sinks=["null"]) as stream:
        for _ in range(count):
            mel, at = source[: int(rng.integers(1, 80))], 0
            while at < len(mel):
                cut = int(rng.integers(1, 24))
                stream.send(mel[at : at + cut], 30)
                at += cut
            played = stream.wait_played(30)
            wrong += not isinstance(played, wire.Played) or played.total_samples != len(mel) * 256
    yield Result(
        "utterances not frames x 256 samples, through the daemon", wrong, f"of {count}", cpu_name(), {}, "<= 0"
    )


def memory(daemon: Daemon) -> Iterator[Result]:
    """Resident memory of each process, and whether the client library loads torch."""
    for role, pid in sorted(daemon.role_pids().items()):
        goal = "<= 120" if role in ("gateway", "speaker") else ""
        yield Result(f"memory of the {role}", rss_bytes(pid) / 1e6, "MB", cpu_name(), {}, goal)
    code = (
        "import sys; from glowd.clients import Client; "
        "print('torch' in sys.modules, open('/proc/self/statm').read().split()[1])"
    )
    torch_loaded, rss_pages = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    yield Result("client library loads torch", torch_loaded == "True", "0 or 1", cpu_name(), {}, "<= 0")
    yield Result("memory of a client", int(rss_pages) * os.sysconf("SC_PAGE_SIZE") / 1e6, "MB", cpu_name(), {})


def service(env: dict[str, str], seconds: float, utterances: int) -> Iterator[Result]:
    """Everything above against one daemon that plays on the device `pulse` of `env`."""
    with running_daemon("speaker.device=pulse", env=env) as daemon:
        yield from first_audio(daemon, utterances)
        yield from random_chunkings(daemon, 100)
        yield from live_streams(daemon, 1, seconds, "device")
        yield from live_streams(daemon, 3, seconds, "device")
        yield from memory(daemon)
