"""What the loss of a node, the loss of the head, a drain and a changing load cost those who listen: nothing, or a short gap."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from glowd.clients.errors import Refused
from glowd.flow.checkpoint import load
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.waiting import WAIT_S, repeated_after_stalls, until
from tests.ray.conftest import START_S, Serve, Served, free_port
from tests.ray.local_cluster import LocalCluster, local_cluster
from tests.ray.voices import MEL, Voice

LONGEST_GAP_S = 1.5


def placed(served: Served) -> Counter[str]:
    """How many streams each engine has."""
    return Counter(stream.engine for stream in served.snapshot().streams.values())


def speaking(served: Served, count: int, sentences: int = 1) -> list[Voice]:
    """So many streams, each of which has been heard."""
    voices = [Voice(served.client, seed, sentences=sentences) for seed in range(count)]
    for voice in voices:
        assert voice.has_audio.wait(WAIT_S), voice.name
    return voices


def finish(voices: list[Voice]) -> float:
    """Wait for the ends of all; returns the longest gap that one of them had."""
    for voice in voices:
        voice.finish()
    return max(voice.gap_s for voice in voices)


@repeated_after_stalls
def test_killed_node_costs_no_sample_of_ten_streams(serve: Serve, cluster: LocalCluster) -> None:
    """In the middle of their sentences; then there are as many nodes and engines as before."""
    with serve(cluster.address, engine="waveglow", cluster_min=3, cluster_max=3) as served:
        served.wait_engines(3)
        assert len({served.node_of(engine) for engine in served.engines()}) == 3
        voices = speaking(served, 10)
        lost, streams = placed(served).most_common(1)[0]
        assert streams >= 3
        cluster.kill_node(served.node_of(lost))
        gap_s = finish(voices)
        cluster.add_node()
        vocoder = ExactVocoder(load("embedded"), VocoderOptions(slots=1))
        for voice in voices:
            np.testing.assert_allclose(voice.samples, render(vocoder, MEL, voice.seed), atol=1e-5)
        served.wait_engines(3)  # Ray has restarted it on another node
        assert gap_s <= LONGEST_GAP_S


@repeated_after_stalls
def test_drained_node_loses_no_stream_and_is_left(serve: Serve, cluster: LocalCluster) -> None:
    with serve(cluster.address, cluster_min=2, cluster_max=3) as served:
        before = served.wait_engines(2)
        leaving = next(iter(before))
        node = served.node_of(leaving)
        voices = speaking(served, 6, sentences=3)
        drain_node(cluster.address, node)
        until(lambda: leaving not in served.engines(), "the engine's leaving", START_S, every_s=0.2)
        assert len(served.engines()) >= 2  # its successor is ready before it goes
        gap_s = finish(voices)
        for voice in voices:
            sentence = render(RtisiVocoder(), MEL, voice.seed)
            np.testing.assert_allclose(voice.samples, np.concatenate([sentence] * 3), atol=1e-6)
        until(lambda: node not in served.nodes(), "the end of the actor", every_s=0.2)
        cluster.add_node()
        assert gap_s <= LONGEST_GAP_S


def drain_node(address: str, node: str) -> None:
    """As the operator, or a cloud that takes a machine back, tells Ray."""
    import ray

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    full = next(one["NodeID"] for one in ray.nodes() if one["NodeID"].startswith(node))
    ray.shutdown()
    words = ["drain-node", "--address", address, "--node-id", full, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "test", "--deadline-remaining-seconds", "600"]
    subprocess.run([str(Path(sys.executable).parent / "ray"), *words], check=True, capture_output=True)


@repeated_after_stalls
def test_load_that_rises_and_falls_changes_the_engines(serve: Serve, cluster: LocalCluster) -> None:
    """From one engine to three and back. Who is admitted is heard without a gap; once engines are there, nobody is refused."""
    settings = {"cluster_min": 1, "cluster_max": 3, "max_streams": 2}
    with serve(cluster.address, "cluster.target=0.6", **settings) as served:
        served.wait_engines(1)
        refused = Counter[int]()
        voices: list[Voice] = []
        for count in (1, 2, 3, 4, 5, 5):  # more streams at a time
            voices += [
                open_or_wait(served, len(voices) + n, refused, count) for n in range(count - speaking_now(served))
            ]
            served.wait_at_least(min(3, -(-count // 2)))
        served.wait_engines(3)
        after = refused.copy()
        voices += [open_or_wait(served, len(voices), refused, 6)]
        assert refused == after  # none after the scale-up
        gap_s = finish(voices)
        served.wait_engines(1, START_S)
        until(lambda: len(served.snapshot().nodes) and len(served.nodes()) == 1, "the ends of the actors", every_s=0.2)
        assert gap_s <= PREFILL_S


PREFILL_S = 0.3
"""What a listener collects before playing: audio that is later than this would be a gap."""


def speaking_now(served: Served) -> int:
    """How many streams are open."""
    return len(served.snapshot().streams)


def open_or_wait(served: Served, number: int, refused: Counter[int], level: int) -> Voice:
    """A stream, opened again and again until it is not refused; counts how often it was, by level of load."""
    until_s = time.monotonic() + START_S
    while True:
        try:
            return Voice(served.client, 100 + number, sentences=4)
        except Refused:
            assert time.monotonic() < until_s, "no engine was started for it"
            refused[level] += 1
            time.sleep(0.5)


@repeated_after_stalls
def test_lost_head_stops_no_audio_and_comes_back(serve: Serve, cluster: LocalCluster) -> None:
    """The head has a store on a disk: what it starts again with."""
    with serve(cluster.address, cluster_min=2, cluster_max=2) as served:
        engines = set(served.wait_engines(2))
        voices = speaking(served, 4, sentences=2)
        cluster.kill_head()
        until(lambda: all(voice.ended for voice in voices), "the end of the first sentences")
        cluster.restart_head()  # before its nodes give it up
        gap_s = finish(voices)
        assert gap_s <= LONGEST_GAP_S and set(served.engines()) == engines
        until(lambda: len(served.nodes()) == 2, "the nodes, from the head that is back", START_S, every_s=0.5)
        assert set(served.engines()) == engines
        assert finish(speaking(served, 2)) <= LONGEST_GAP_S


@repeated_after_stalls
def test_engines_come_back_on_a_cluster_made_anew(serve: Serve, secrets_directory: Path) -> None:
    """A head without a store, lost for good, takes its cluster along; the next one at the same address is used."""
    port = free_port()
    with (
        local_cluster(secrets_directory, nodes=1, port=port) as first,
        serve(first.address, cluster_min=1, cluster_max=1) as served,
    ):
        served.wait_engines(1)
        (voice,) = speaking(served, 1, sentences=2)
        first.kill_head()
        assert finish([voice]) <= LONGEST_GAP_S
        first.shutdown()
        until(lambda: not served.engines(), "the loss of the engine")
        with local_cluster(secrets_directory, nodes=1, port=port):
            served.wait_engines(1)
            assert finish(speaking(served, 1)) <= LONGEST_GAP_S


def test_key_of_an_engine_is_seen_by_nobody(serve: Serve, cluster: LocalCluster) -> None:
    with serve(cluster.address, "log.level=debug", cluster_min=1, cluster_max=1) as served:
        served.wait_engines(1)
        environ = next(
            text for text in read_all(Path("/proc").glob("[0-9]*/environ")) if b"GLOWD_PLACED_ENGINE=" in text
        )
        secret = environ.partition(b"glowd://")[2].partition(b":")[2][:64]
        assert len(secret) == 64 and secret.isalnum()
        logs = read_all(path for path in Path("/tmp/ray/session_latest/logs").rglob("*") if path.is_file())
        assert logs and not any(secret in text for text in logs)
        assert not any(secret in text for text in read_all(Path("/proc").glob("[0-9]*/cmdline")))
        assert secret.decode() not in "".join(served.daemon.launched.output)


def read_all(paths: "object") -> list[bytes]:
    """The contents of files, but of those that are gone or may not be read."""
    found = []
    for path in paths:  # type: ignore[attr-defined]
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found
