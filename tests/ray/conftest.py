"""A cluster of three nodes for all tests, and a daemon whose engines run there."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from glowd.clients import Client
from glowd.daemon.wire.telemetry import EngineSnapshot, NodeSnapshot, Snapshot
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.waiting import WAIT_S, until
from tests.ray.local_cluster import LocalCluster, local_cluster

START_S = 3 * WAIT_S
"""Three engines load at the same time on two cores."""


class Served:
    """A daemon with engines on a cluster, as its user sees it."""

    def __init__(self, daemon: Daemon, client: Client) -> None:
        self.daemon, self.client = daemon, client

    def snapshot(self) -> Snapshot:
        """Its state."""
        return Snapshot.from_map(self.client.status().info)

    def engines(self) -> dict[str, EngineSnapshot]:
        """The engines that are ready, by name."""
        voice = self.snapshot().voices["glow"]
        return {name: engine for name, engine in voice.engines.items() if engine.ready}

    def nodes(self) -> dict[str, NodeSnapshot]:
        """The nodes that have engines, by id."""
        return {name: node for name, node in self.snapshot().nodes.items() if node.engines}

    def node_of(self, engine: str) -> str:
        """The node of an engine, once Ray has said."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [name for name, node in self.snapshot().nodes.items() if engine in node.engines]
            return bool(found)

        until(look, f"a node for {engine}", every_s=0.2)
        return found[0]

    def wait_engines(self, count: int, timeout_s: float = START_S) -> dict[str, EngineSnapshot]:
        """Wait until just so many engines are ready; returns them."""
        until(lambda: len(self.engines()) == count, f"{count} engines", timeout_s, every_s=0.2)
        return self.engines()

    def wait_at_least(self, count: int) -> None:
        """Wait until so many engines are ready, or more: several that load at once may come in one moment."""
        until(lambda: len(self.engines()) >= count, f"{count} engines or more", START_S, every_s=0.2)


Serve = Callable[..., AbstractContextManager[Served]]


@pytest.fixture(scope="session")
def secrets_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all clusters of the tests share: this process can have one token."""
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="session")
def cluster(secrets_directory: Path) -> Iterator[LocalCluster]:
    """Three nodes with two GPUs each."""
    with local_cluster(secrets_directory, nodes=3, gpus=2) as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """serve(ADDRESS, cluster_min=3, ...): a daemon with these settings of its voice; all its engines run on the cluster."""

    @contextlib.contextmanager
    def started(address: str, *settings: str, engine: str = "rtisi-la", **voice: Any) -> Iterator[Served]:
        table = {"engine": engine, "max_streams": 8, "cluster_gpus": 1.0, "devices": [], **voice}
        keys = ",".join(f"{key}={json.dumps(value)}" for key, value in table.items())
        with (
            running_daemon(
                "speaker.enabled=false", f"server.engines=tcp://127.0.0.1:{free_port()}", f"server.keys={tmp_path}/keys",
                f"cluster.ray={address}", "cluster.hold_s=3.0", "server.max_streams=64", "server.max_peer_streams=64",
                f"voices={{glow={{{keys}}}}}", *settings,
            ) as daemon,
            daemon.client() as client,
        ):  # fmt: skip
            yield Served(daemon, client)

    return started


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
