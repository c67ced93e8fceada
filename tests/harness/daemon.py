"""A running daemon for tests and benchmarks."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glowd.clients import Client, launch
from glowd.daemon.wire import ReadyLine
from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[2]
ROLES = "glowd.daemon."
PATIENT = (
    "server.role_wait_s=300", "supervisor.ready_timeout_s=300", "supervisor.watchdog_s=60", "supervisor.grace_s=60",
)  # fmt: skip
"""On a slow machine no role is restarted, and no stream is given up while its engine starts."""
ONLY_GLOW = 'voices={glow={engine="waveglow"}}'
"""Each voice is a process that takes seconds to start; config.toml has three."""


@dataclass(frozen=True)
class Daemon:
    """A glowd that is ready."""

    launched: launch.Daemon

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The supervisor's process."""
        return self.launched.process

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return self.launched.endpoint

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.launched.run_dir

    def client(self, name: str = "test") -> Client:
        """A connected client."""
        return Client(self.endpoint, name=name, timeout_s=WAIT_S, reconnect_s=5 * WAIT_S)

    def role_pids(self) -> dict[str, int]:
        """Process ids of the roles, by module and engine: "gateway", "engine glow", "engine glow/1", "speaker"."""
        pids = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                if str(self.run_dir) in words:
                    module = next(word for word in words if word.startswith(ROLES)).removeprefix(ROLES)
                    engine = words[words.index("--engine") + 1] if "--engine" in words else ""
                    pids[f"{module} {engine}".strip()] = int(entry.name)
        return pids


def free_port() -> int:
    """A port of its own: with web.port=0 a web process that is restarted gets another one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_peak(pid: int) -> None:
    """Have `peak_bytes` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


@contextlib.contextmanager
def running_daemon(*settings: str, env: dict[str, str] | None = None, ready_s: float = 5 * WAIT_S) -> Iterator[Daemon]:
    """glowd with config.toml and `--set` overrides, in a run directory of its own; it is stopped at the end."""
    arguments = [word for setting in (*PATIENT, *settings) for word in ("--set", setting)]
    config = ("run", "--config", str(ROOT / "config.toml"))
    with launch.launch(*config, *arguments, env=env, cwd=ROOT, ready_s=ready_s, stop_s=2 * WAIT_S) as launched:
        yield Daemon(launched)


@contextlib.contextmanager
def killable_daemon(run_dir: Path, *settings: str, env: dict[str, str] | None = None) -> Iterator[Daemon]:
    """glowd in a run directory that outlives it; at the end of the block it may be dead."""
    arguments = [word for setting in (*PATIENT, *settings) for word in ("--set", setting)]
    environment = {**os.environ, **(env or {}), "GLOWD_RUN_DIR": str(run_dir)}
    process = subprocess.Popen(
        [*launch.GLOWD, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    try:
        assert process.stdout, "it is a pipe"
        ready = next((found for line in process.stdout if (found := ReadyLine.parse(line))), None)
        assert ready, "glowd did not become ready"
        yield Daemon(launch.Daemon(process, run_dir, ready=ready))
    finally:
        process.terminate()
        process.communicate(timeout=2 * WAIT_S)


def kill(daemon: Daemon) -> None:
    """End all processes of a daemon at once."""
    for pid in (daemon.process.pid, *daemon.role_pids().values()):
        os.kill(pid, signal.SIGKILL)
    daemon.process.wait(WAIT_S)
