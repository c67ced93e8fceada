"""A role's half of the contract with the supervisor, each with a real process."""

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

from glowd.daemon.runtime.role import plain
from tests.patience import WAIT_S

ROOT = Path(__file__).parents[3]
PLAIN_LOOP = """
from glowd.daemon.runtime.role import Role
with Role.start("speaker") as role:
    print("a library that prints")
    role.ready(device="fake")
    while not role.stopping.wait(0.05):
        role.alive()
"""
ASYNCIO = """
import asyncio
from glowd.daemon.runtime.role import Role
async def serve(role):
    role.ready()
    await role.run_until_stop()
with Role.start("gateway") as role:
    asyncio.run(serve(role))
"""
LOOPS = pytest.mark.parametrize("script", [PLAIN_LOOP, ASYNCIO], ids=["plain", "asyncio"])


@contextmanager
def role(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A role process that has said ready; killed at the end if it still runs."""
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


@LOOPS
def test_a_role_says_ready_then_alive_and_stops_when_stdin_ends(script: str) -> None:
    with role(script) as process:
        assert "ready" in status(process)
        assert status(process) == {"alive": 1}
        assert process.stdin
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


@LOOPS
def test_sigterm_stops_a_role_and_sigint_does_not(script: str) -> None:
    with role(script) as process:
        assert "ready" in status(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_what_a_library_prints_goes_to_the_log() -> None:
    with role(PLAIN_LOOP) as process:
        assert status(process) == {"ready": {"device": "fake"}}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_S)
        assert "a library that prints" in err
        assert all(json.loads(line) == {"alive": 1} for line in out.splitlines())


def test_a_role_that_ignores_the_end_of_stdin_is_ended() -> None:
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


def test_a_closed_status_pipe_stops_a_role() -> None:
    with role(PLAIN_LOOP) as process:
        assert "ready" in status(process)
        assert process.stdout
        process.stdout.close()
        process.stdout = None
        assert process.wait(WAIT_S) == 0


def test_an_exception_is_reported_once_and_logged_on_one_line_without_control_characters() -> None:
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "server.x=1"], "unknown setting server.x"),
        (["--engine", "nobody"], "there is no engine nobody; known: glow, rtisi, griffin-lim"),
        (["--config", "/nonexistent.toml"], "cannot read the configuration /nonexistent.toml"),
    ],
)
def test_a_bad_configuration_is_a_failed_line(arguments: list[str], words: str) -> None:
    with role(PLAIN_LOOP, *arguments) as process:
        assert words in status(process)["failed"]
        assert process.wait(WAIT_S) == 1


def test_plain_keeps_words_of_any_language_and_escapes_what_could_forge_a_line() -> None:
    assert plain("Grüße 你好") == "Grüße 你好"
    assert plain("a\nb\x1b[2J\x9b\u2028\u202e") == r"a\nb\x1b[2J\x9b\u2028\u202e"


def test_on_stop_calls_back_once_even_when_it_comes_late() -> None:
    script = """
from glowd.daemon.runtime.role import Role
with Role.start("gateway") as role:
    role.on_stop(lambda: role.failed("early"))
    role.stop()
    role.stop()
    role.on_stop(lambda: role.failed("late"))
"""
    with role(script) as process:
        out, _ = process.communicate(timeout=WAIT_S)
        assert [json.loads(line)["failed"] for line in out.splitlines()] == ["early", "late"]
