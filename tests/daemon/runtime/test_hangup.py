"""SIGHUP reloads, and ends a program whose terminal was closed."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[3]
SCRIPT = """
import signal, sys, time
from glowd.daemon.runtime.hangup import Hangup
out = open(sys.argv[1], "w", buffering=1)
if sys.argv[2] == "nohup": signal.signal(signal.SIGHUP, signal.SIG_IGN)
hangup = Hangup(lambda: print("reload", file=out), lambda: (print("stop", file=out), sys.exit()))
signal.signal(signal.SIGHUP, lambda *_: hangup())
print("begun", file=out)
print("begun", flush=True)
while True: time.sleep(0.05)
"""


def said(path: Path, last: str) -> list[str]:
    """The lines of a file, once the last of them is there."""
    until = os.times().elapsed + WAIT_S
    while os.times().elapsed < until:
        if path.exists() and path.read_text().endswith(f"{last}\n"):
            return path.read_text().splitlines()
    raise AssertionError(f"{last} was not said: {path.read_text()!r}")


def test_signal_without_a_terminal_reloads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), ""]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGHUP)
            assert said(tmp_path / "out", "reload") == ["begun", "reload"]
        finally:
            process.kill()


@pytest.mark.parametrize(("how", "after"), [("", ["stop"]), ("nohup", [])])
def test_closed_terminal_stops_and_a_signal_before_reloads(tmp_path: Path, how: str, after: list[str]) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
        os.execv(sys.executable, [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), how])
    try:
        assert b"begun" in os.read(terminal, 1000)
        os.kill(child, signal.SIGHUP)
        assert said(tmp_path / "out", "reload") == ["begun", "reload"]
        os.close(terminal)  # the kernel sends the signal
        if after:
            assert said(tmp_path / "out", "stop")[2:] == after
            os.waitpid(child, 0)
        else:
            os.kill(child, signal.SIGHUP)
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
            assert (tmp_path / "out").read_text().splitlines() == ["begun", "reload"]
    finally:
        if not after:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
