"""The demonstration behind `make cluster-demo`: a Ray cluster of three nodes on this machine, a voice with an engine on each, six
streams that speak at once, and the loss of a node in the middle of their sentence. It shows what the listeners noticed.

    python -m tests.ray.demo
"""

import sys
import tempfile
import time
from pathlib import Path

from glowd.clients.cli import tables
from glowd.clients.client import Client
from glowd.clients.launch import launch
from glowd.daemon.wire.telemetry import Snapshot
from tests.harness.waiting import until
from tests.ray.conftest import free_port
from tests.ray.local_cluster import LocalCluster, local_cluster
from tests.ray.voices import RATE_HZ, Voice

NODES, STREAMS = 3, 6
START_S = 300.0
VOICE = "voices={glow={engine='waveglow',devices=[],max_streams=8,cluster_min=3,cluster_max=3,cluster_gpus=1.0}}"


def say(text: str) -> None:
    """Print a line, or several, at once."""
    print(text, flush=True)


def snapshot(client: Client) -> Snapshot:
    """The daemon's state."""
    return Snapshot.from_map(client.status().info)


def ready(client: Client) -> int:
    """How many engines are ready."""
    return sum(engine.ready for engine in snapshot(client).voices["glow"].engines.values())


def show(client: Client) -> None:
    """What `glowctl status` shows of engines and nodes."""
    found = snapshot(client)
    for table in (tables.voices_table(found), tables.nodes_table(found)):
        say("\n".join(tables.layout(table)))


def placed(client: Client) -> int:
    """How many engines Ray has told the node of."""
    return sum(len(node.engines) for node in snapshot(client).nodes.values())


def lose_a_node(client: Client, cluster: LocalCluster) -> None:
    """Kill the node of an engine that speaks."""
    found = snapshot(client)
    engine = next(iter(found.streams.values())).engine
    node = next(name for name, node in found.nodes.items() if engine in node.engines)
    streams = [name for name, stream in found.streams.items() if stream.engine == engine]
    say(f"\nkilling node {node} with engine {engine}, in the middle of the sentence of {', '.join(streams)}")
    cluster.kill_node(node)


def show_voices(voices: list[Voice]) -> None:
    """A line for each stream: what its listener noticed."""
    say("")
    for voice in voices:
        voice.finish()
        samples = len(voice.samples)
        say(f"  {voice.name}: {samples} samples, {samples / RATE_HZ:.2f} s, all there; longest gap {voice.gap_s:.2f} s")


def run(directory: Path) -> None:
    """Start everything, speak, lose a node, show."""
    began_s = time.monotonic()
    say(f"starting a Ray cluster of {NODES} nodes ...")
    with local_cluster(directory, nodes=NODES, gpus=2) as cluster:
        settings = (VOICE, "speaker.enabled=false", f"server.engines=tcp://127.0.0.1:{free_port()}",
                    f"server.keys={directory}/keys", f"cluster.ray={cluster.address}")  # fmt: skip
        say("starting glowd ...")
        with (
            launch("run", *(word for setting in settings for word in ("--set", setting))) as daemon,
            Client(daemon.endpoint, name="demo", timeout_s=30) as client,
        ):
            say("waiting for three engines ...")
            until(lambda: ready(client) == NODES and placed(client) == NODES, "three engines", START_S, every_s=0.5)
            say(f"ready after {time.monotonic() - began_s:.0f} s")
            show(client)
            voices = [Voice(client, seed) for seed in range(STREAMS)]
            for voice in voices:
                voice.has_audio.wait(START_S)
            lose_a_node(client, cluster)
            show_voices(voices)
            say("\nwaiting until Ray has restarted the engine on another node ...")
            until(lambda: ready(client) == NODES and placed(client) == NODES, "three engines", START_S, every_s=0.5)
            show(client)


def main() -> int:
    """The exit status."""
    with tempfile.TemporaryDirectory(prefix="glowd-cluster-") as directory:
        run(Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
