"""Start glowd from a program, wait until it is ready, and stop it:

    with launch("--set", "speaker.enabled=false") as daemon, Client(daemon.endpoint) as client:
        ...

Rules: `glowd` is a process like any other program: arguments in, output out. It has a run directory of its own, so that
several can run at once. Standard library only.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glowd.clients.errors import GlowdError
from glowd.daemon.wire import ReadyLine

GLOWD = (sys.executable, "-P", "-m", "glowd.daemon.app")
READY_S, STOP_S = 180.0, 15.0
LOG_LINES = 12


class LaunchError(GlowdError):
    """glowd did not start, or did not stop as it should. The text has the end of its log."""


@dataclass
class Daemon:
    """A glowd that was started: its process, its run directory, the lines that it has printed and logged."""

    process: "subprocess.Popen[str]"
    run_dir: Path
    output: list[str] = field(default_factory=list)
    ready: ReadyLine | None = None

    @property
    def endpoint(self) -> str:
        """Where clients connect. The daemon must be ready, as it is inside `launch`."""
        assert self.ready, "launch has waited for it"
        return self.ready.endpoint

    def log_end(self) -> str:
        """The last lines of the output, for error messages."""
        return "".join(self.output[-LOG_LINES:]).rstrip() or "it has printed nothing"


@contextlib.contextmanager
def launch(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ready_s: float = READY_S,
    stop_s: float = STOP_S,
    command: Sequence[str] = GLOWD,
) -> Iterator[Daemon]:
    """A running `glowd ARGUMENTS`, ready for clients; it is stopped at the end of the block.

    `env` adds environment variables. Raises LaunchError if the daemon is not ready within `ready_s`, does not stop within
    `stop_s` (it is killed then), or ends with another status than 0. An exception of the block is not replaced.
    """
    with tempfile.TemporaryDirectory(prefix="glowd-") as directory:
        run_dir = Path(directory, "run")
        environment = {**os.environ, **(env or {}), "GLOWD_RUN_DIR": str(run_dir)}
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=cwd,
        )
        daemon, answered = Daemon(process, run_dir), threading.Event()
        reader = threading.Thread(target=_read, args=(daemon, answered), name="glowd-output", daemon=True)
        reader.start()
        try:
            answered.wait(ready_s)
            if daemon.ready is None:
                raise LaunchError(f"glowd did not become ready; its log ends with:\n{daemon.log_end()}")
            yield daemon
        finally:
            problem = _stop(process, stop_s)
            reader.join(stop_s)  # a role that outlives a killed daemon holds the pipe open for a few seconds
        if problem:
            raise LaunchError(f"glowd {problem}; its log ends with:\n{daemon.log_end()}")


def _read(daemon: Daemon, answered: threading.Event) -> None:
    """Collect the output to its end; `answered` is set at the ready line, or at the end without one."""
    assert daemon.process.stdout, "it is a pipe"
    with daemon.process.stdout as lines:
        for line in lines:
            daemon.output.append(line)
            if daemon.ready is None and (ready := ReadyLine.parse(line)):
                daemon.ready = ready
                answered.set()
    answered.set()


def _stop(process: "subprocess.Popen[str]", stop_s: float) -> str:
    """Stop the process if it runs; returns what was wrong with its end, "" if nothing."""
    process.terminate()
    try:
        status = process.wait(stop_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"did not stop within {stop_s:g} s and was killed"
    return f"ended with status {status}" if status else ""
