"""A Ray cluster on this machine: a head and nodes that are processes, with GPUs that are only numbers.

Rules: nothing of it is reached by another machine: whoever connects needs the token, which is new each time. No dashboard, no
statistics to anyone, 80 MB of object store for each node. A node is killed as a machine is lost: all its processes at once.
"""

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OBJECT_STORE_BYTES = 80 << 20
HEALTH = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 2,
}  # fmt: skip
"""A node that is lost is noticed in some seconds instead of fifteen."""


def environment(directory: Path) -> dict[str, str]:
    """What each process of the cluster, and each that uses it, must have in its environment."""
    token = directory / "token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(directory / secrets.token_hex(4)),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
        "RAY_worker_niceness": "0",
    }


class LocalCluster:
    """A running cluster. `address`: of its head."""

    def __init__(self, nodes: int, gpus: int, port: int | None = None) -> None:
        from ray.cluster_utils import Cluster  # after the environment is set

        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        if port:
            head["gcs_server_port"] = port
        self._cluster = Cluster(
            initialize_head=True,
            shutdown_at_exit=True,
            head_node_args=head | {"object_store_memory": OBJECT_STORE_BYTES},
        )
        self.address, self._gpus = str(self._cluster.address), gpus
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> None:
        """One more node."""
        self._cluster.add_node(num_cpus=self._gpus, num_gpus=self._gpus, object_store_memory=OBJECT_STORE_BYTES)

    def kill_node(self, node: str) -> None:
        """Lose the node whose id begins so, with every process of it."""
        found = next(one for one in self._cluster.worker_nodes if one.node_id.startswith(node))
        for pid in processes_of(found):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.remove_node(found, allow_graceful=False)

    def kill_head(self) -> None:
        """Lose what the head does; what it has stored stays."""
        self._cluster.head_node.kill_gcs_server()

    def restart_head(self) -> None:
        """Start the head again, from what it has stored."""
        self._cluster.head_node.start_gcs_server()

    def shutdown(self) -> None:
        """End it."""
        self._cluster.shutdown()


def processes_of(node: Any) -> list[int]:
    """The processes of a node, and all that they have started."""
    roots = {info.process.pid for infos in node.all_processes.values() for info in infos}
    parents = {int(entry.name): parent_of(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, more = set(roots), True
    while more:
        more_pids = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found, more = found | more_pids, bool(more_pids)
    return sorted(found)


def parent_of(entry: Path) -> int:
    """The parent of the process with this entry in /proc; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextlib.contextmanager
def local_cluster(directory: Path, nodes: int, gpus: int = 1, port: int | None = None) -> Iterator[LocalCluster]:
    """A cluster, which ends with the block. Clusters of one directory have the same token."""
    os.environ.update(environment(directory))
    cluster = LocalCluster(nodes, gpus, port)
    try:
        yield cluster
    finally:
        cluster.shutdown()
