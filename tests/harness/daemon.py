"""A running daemon for tests and benchmarks."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glowd.clients import Client
from tests.patience import WAIT_S

ROOT = Path(__file__).parents[2]
ROLES = "glowd.daemon."
PATIENT = (
    "server.role_wait_s=300", "supervisor.ready_timeout_s=300", "supervisor.watchdog_s=60", "supervisor.grace_s=60",
)  # fmt: skip
"""On a slow machine no role is restarted, and no stream is given up while its engine starts."""


@dataclass
class Daemon:
    """A started glowd: its process, where it listens, and what it said."""

    process: subprocess.Popen[str]
    run_dir: Path
    output: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return f"ipc://{self.run_dir}/glowd.ipc"

    def client(self, name: str = "test") -> Client:
        """A connected client."""
        return Client(self.endpoint, name=name, timeout_s=WAIT_S)

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


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running_daemon(*settings: str, env: dict[str, str] | None = None, ready_s: float = 5 * WAIT_S) -> Iterator[Daemon]:
    """Start glowd with config.toml and `--set` overrides in a run directory of its own; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        run_dir = Path(name) / "run"
        command = [sys.executable, "-m", "glowd.daemon.app", "run", "--config", str(ROOT / "config.toml")]
        command += [word for setting in (*PATIENT, *settings) for word in ("--set", setting)]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | (env or {}) | {"GLOWD_RUN_DIR": str(run_dir)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        daemon, ready = Daemon(process, run_dir), threading.Event()
        reader = threading.Thread(target=_read, args=(daemon, ready), daemon=True)
        reader.start()
        try:
            if not ready.wait(ready_s) or process.poll() is not None:
                raise AssertionError("glowd did not become ready:\n" + "".join(daemon.output))
            yield daemon
        finally:
            process.terminate()
            try:
                process.wait(2 * WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                reader.join(WAIT_S)


def _read(daemon: Daemon, ready: threading.Event) -> None:
    assert daemon.process.stdout is not None
    for line in daemon.process.stdout:
        daemon.output.append(line)
        if line.startswith("glowd ready"):
            ready.set()
    ready.set()
