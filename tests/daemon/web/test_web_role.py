"""The web role as a process of its own, without the rest of the daemon."""

import json
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.harness.waiting import WAIT_S

COMMAND = [sys.executable, "-P", "-m", "glowd.daemon.web"]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@contextmanager
def role(run_dir: Path, *settings: str, command: list[str] = COMMAND) -> Iterator["subprocess.Popen[str]"]:
    words = [word for setting in ("web.port=0", *settings) for word in ("--set", setting)]
    pipe = subprocess.PIPE
    arguments = [*command, "--run-dir", str(run_dir), *words]
    with subprocess.Popen(arguments, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def first_status(process: "subprocess.Popen[str]") -> dict[str, dict[str, str]]:
    assert process.stdout
    while "alive" in (status := json.loads(process.stdout.readline())):
        pass
    found: dict[str, dict[str, str]] = status
    return found


def test_role_serves_until_its_supervisor_is_gone(run_dir: Path) -> None:
    with role(run_dir) as process:
        url = first_status(process)["ready"]["url"]
        address, _, token = url.partition("#token=")
        assert (run_dir / "web-token").read_text().strip() == token
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{address}health", timeout=WAIT_S)
        assert process.stdin and process.stdout
        assert json.loads(process.stdout.readline()) == {"alive": 1}
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


def test_sigterm_stops_the_role_in_order(run_dir: Path) -> None:
    with role(run_dir) as process:
        assert "ready" in first_status(process)
        process.terminate()
        _, log = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, log
        assert "Traceback" not in log and "token=" not in log, log


def test_server_refuses_foreign_pages_names_and_tokens(run_dir: Path) -> None:
    """The same as tests/clients/web/test_protection.py, through the real server."""
    with role(run_dir) as process:
        address, _, token = first_status(process)["ready"]["url"].partition("#token=")
        place = address.removeprefix("http://")
        right = {"Authorization": f"Bearer {token}"}
        assert status_of(address) == 200
        assert status_of(address, {"Host": "evil.example"}) == 403
        assert status_of(address, {"Origin": "https://evil.example"}) == 403
        assert status_of(f"{address}v1/mel", {}, b"{}") == 401
        assert status_of(f"{address}v1/mel?token={token}", right, b"{}") == 401
        assert status_of(f"{address}metrics") == 401
        own = Origin(address.rstrip("/"))
        for origin, host in ((Origin("https://evil.example"), place), (Origin("null"), place), (None, "evil.example/")):
            sock = socket.create_connection(("127.0.0.1", int(place.rstrip("/").partition(":")[2])))
            with sock, pytest.raises(InvalidStatus, match="403"):
                connect(f"ws://{host}live", origin=origin, sock=sock)
        for hello in ({"type": "hello", "token": "wrong"}, {"type": "voices"}):
            with connect(f"ws://{place}live", origin=own) as page:
                page.send(json.dumps(hello))
                with pytest.raises(ConnectionClosed, match="4401"):
                    page.recv(WAIT_S)
        with connect(f"ws://{place}live", origin=own) as page:
            page.send(json.dumps({"type": "hello", "token": token}))
            assert json.loads(page.recv(WAIT_S))["how"] == "lost", "it is let in, and there is no daemon"


def status_of(url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
    """The status of the answer to a GET, or to a POST of `body`."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=WAIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_port_that_is_taken_is_the_reason(run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with role(run_dir, f"web.port={port}") as process:
            reason = first_status(process)["failed"]
            assert f"cannot listen at 127.0.0.1:{port}" in reason and "web.port" in reason
            assert process.wait(WAIT_S) == 1


def test_missing_package_is_the_reason(run_dir: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from glowd.daemon.web.process import main; main()"
    with role(run_dir, command=[sys.executable, "-c", program]) as process:
        reason = first_status(process)["failed"]
        assert "needs the package uvicorn" in reason and "-m pip install" in reason


def test_role_loads_neither_torch_nor_a_sound_library() -> None:
    program = "import sys, glowd.daemon.web.serving; print([m for m in ('torch', 'sounddevice', 'librosa') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
