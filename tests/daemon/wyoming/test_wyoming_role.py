"""The wyoming role as a process of its own, without the rest of the daemon."""

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.waiting import WAIT_S

COMMAND = [sys.executable, "-P", "-m", "glowd.daemon.wyoming"]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@contextmanager
def role(run_dir: Path, *settings: str, command: list[str] = COMMAND) -> Iterator["subprocess.Popen[str]"]:
    chosen = ("wyoming.port=0", "wyoming.tts=espeak-ng", *settings)
    words = [word for setting in chosen for word in ("--set", setting)]
    pipe = subprocess.PIPE
    arguments = [*command, "--run-dir", str(run_dir), *words]
    with subprocess.Popen(arguments, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def first_status(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout
    while "alive" in (status := json.loads(process.stdout.readline())):
        pass
    found: dict[str, Any] = status
    return found


def test_role_serves_until_it_is_to_stop(run_dir: Path) -> None:
    with role(run_dir) as process:
        host, _, port = first_status(process)["ready"]["uri"].removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), WAIT_S) as client, client.makefile("rwb") as file:
            file.write(b'{"type": "ping"}\n')
            file.flush()
            assert json.loads(file.readline())["type"] == "pong"
            process.terminate()
            _, log = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and "Traceback" not in log, log


def test_port_that_is_taken_is_the_reason(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with role(run_dir, f"wyoming.port={port}") as process:
            reason = first_status(process)["failed"]
    assert f"cannot listen at 127.0.0.1:{port}" in reason and "wyoming.port" in reason


def test_upstream_that_is_not_there_is_the_reason(run_dir: Path) -> None:
    with role(run_dir, "wyoming.tts=festival") as process:
        assert "wyoming.tts cannot be used: 'festival' names nothing that speaks" in first_status(process)["failed"]


def test_missing_package_is_the_reason(run_dir: Path) -> None:
    program = "import sys; sys.modules['wyoming'] = None; from glowd.daemon.wyoming.process import main; main()"
    with role(run_dir, command=[sys.executable, "-c", program]) as process:
        reason = first_status(process)["failed"]
    assert "needs the package wyoming" in reason and "-m pip install wyoming" in reason


def test_role_loads_neither_torch_nor_a_sound_library() -> None:
    program = (
        "import sys, glowd.daemon.wyoming.serving\n"
        "print([m for m in ('torch', 'sounddevice', 'librosa', 'onnxruntime') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
