"""A role process: what it reports to the supervisor, and how it stops."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[3]
LOOP = """
from glowd.daemon.runtime.role import Role
with Role.start("speaker") as role:
    print("a library that prints")
    role.ready(device="fake")
    while not role.stopping.wait(0.05):
        role.alive()
"""


@contextmanager
def role(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs `script`; killed at the end if it still runs."""
    command = [sys.executable, "-c", script, "--run-dir", "/nonexistent", *arguments]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def status(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def test_role_reports_ready_and_alive_and_stops_at_end_of_stdin() -> None:
    with role(LOOP) as process:
        assert "ready" in status(process)
        assert status(process) == {"alive": 1}
        assert process.stdin
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


def test_sigterm_stops_a_role_and_sigint_does_not() -> None:
    with role(LOOP) as process:
        assert "ready" in status(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_printed_text_goes_to_the_log() -> None:
    with role(LOOP) as process:
        assert status(process) == {"ready": {"device": "fake"}}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_S)
        assert "a library that prints" in err
        assert all(json.loads(line) == {"alive": 1} for line in out.splitlines())


def test_role_that_ignores_the_end_of_stdin_is_ended() -> None:
    stubborn = """
import time
import glowd.daemon.runtime.role as module
module.ORPHAN_GRACE_S = 0.2
with module.Role.start("engine") as role:
    role.ready()
    time.sleep(600)
"""
    with role(stubborn) as process:
        assert "ready" in status(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(WAIT_S) == 70


def test_closed_status_pipe_stops_a_role() -> None:
    with role(LOOP) as process:
        assert "ready" in status(process)
        assert process.stdout
        process.stdout.close()
        process.stdout = None
        assert process.wait(WAIT_S) == 0


def test_role_goes_on_while_nobody_reads_its_status() -> None:
    """A supervisor that is stopped for hours: its pipe is full, and the role must not wait for it."""
    busy = LOOP.replace("role.alive()", "[role.ready(n='x' * 1000) for _ in range(200)]; print('a pass', flush=True)")
    with role(busy) as process:
        assert process.stderr
        assert [line for _, line in zip(range(3), filter("a pass\n".__eq__, process.stderr))] == ["a pass\n"] * 3
        assert process.stdin
        process.stdin.close()
        process.stdin = None
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0


def test_exception_is_reported_and_logged_on_one_line() -> None:
    failing = """
from glowd.daemon.runtime.role import Role
with Role.start("engine") as role:
    raise ValueError("peer said \\x1b[31m\\nred")
"""
    with role(failing) as process:
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 1
        assert json.loads(out) == {"failed": "ValueError: peer said \x1b[31m\nred"}
        assert len(err.splitlines()) == 1
        assert r"engine ERROR engine gives up" in err
        assert r"ValueError: peer said \x1b[31m\nred]" in err


def test_expected_reason_is_reported_without_traceback() -> None:
    failing = """
from glowd.daemon.runtime.role import CannotStart, Role
with Role.start("engine") as role:
    raise CannotStart("no rate", settings=True)
"""
    with role(failing) as process:
        out, err = process.communicate(timeout=WAIT_S)
        assert (process.returncode, json.loads(out), err) == (1, {"failed": "no rate", "settings": True}, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "server.x=1"], "unknown setting server.x"),
        (["--engine", "nobody"], "there is no engine nobody; known: glow, rtisi, griffin-lim"),
        (["--config", "/nonexistent.toml"], "cannot read the configuration /nonexistent.toml"),
    ],
)
def test_wrong_configuration_is_a_failed_line(arguments: list[str], words: str) -> None:
    with role(LOOP, *arguments) as process:
        assert words in status(process)["failed"]
        assert process.wait(WAIT_S) == 1


def test_news_of_supervisor_arrive_in_order() -> None:
    reading = """
from glowd.daemon.runtime.role import Role
with Role.start("gateway") as role:
    role.ready()
    seen = []
    while not role.stopping.wait(0.01) or not seen:
        seen += role.news()
    role.failed(" ".join(f"{news.role} {news.state}" for news in seen))
"""
    with role(reading) as process:
        assert "ready" in status(process) and process.stdin
        for state in ("loading", "away"):
            process.stdin.write(json.dumps({"role": "engine:glow", "state": state, "reason": ""}) + "\n")
        process.stdin.write("no news\n")
        process.stdin.close()
        assert status(process) == {"failed": "engine:glow loading engine:glow away"}
        assert process.wait(WAIT_S) == 0
