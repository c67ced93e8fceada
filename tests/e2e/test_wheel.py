"""The wheel in fresh environments: the client alone, without torch; and beside python-daemon, whose module is `daemon`."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.waiting import WAIT_S

CLIENT_PACKAGES = ("pyzmq", "msgpack", "numpy")
ROOMS = ("clients", "daemon", "flow")
COMMANDS = ("glowd", "glowctl", "glowlab")
Result = subprocess.CompletedProcess[str]


def run(*words: object, cwd: Path = ROOT) -> Result:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, text=True, capture_output=True, timeout=10 * WAIT_S
    )


def must(*words: object) -> str:
    """The output of a command that succeeds."""
    result = run(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Venv:
    """An environment with a few packages, and a user's project that has packages named as our folders."""

    def __init__(self, folder: Path, *packages: object) -> None:
        must(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        self.bin, self.cwd = folder / "venv" / "bin", folder / "project"
        for name in ("clients", "flow"):
            (self.cwd / name).mkdir(parents=True)
            (self.cwd / name / "__init__.py").write_text("THEIRS = True")
        self.install(*packages)
        self.site = Path(self.python("import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())

    def pip(self, *words: object) -> None:
        """Run pip on this environment."""
        must(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", self.bin / "python", *words)

    def install(self, *packages: object) -> None:
        self.pip("install", "--no-deps", *packages)

    def command(self, name: str, *words: object) -> Result:
        """Run a command of the environment."""
        return run(self.bin / name, *words, cwd=self.cwd)

    def python(self, program: str, *words: object) -> Result:
        return self.command("python", "-c", program, *words)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources that contains nothing that git ignores."""
    source, out = tmp_path_factory.mktemp("source") / "glowd", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, ignore=ignored)
    must(sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "-w", out, source)
    (built,) = out.glob("glowd-*.whl")
    return built


@pytest.fixture(scope="module")
def client_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(tmp_path_factory.mktemp("client"), *CLIENT_PACKAGES, wheel)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", 'voices={rtisi={engine="rtisi-la",max_streams=2}}') as running:
        yield running


def test_wheel_contains_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"glowd/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    data = [ROOT / "config.toml", ROOT / "daemon/PROTOCOL.md", *(ROOT / "clients").glob("demo_sentence.*")]
    data += [
        *(ROOT / "clients/web").glob("static/*"),
        ROOT / "clients/web/grafana.json",
        *(ROOT / "daemon/service").glob("*.service"),
    ]
    data += [*(ROOT / "flow/recipes").glob("*"), *(ROOT / "flow/voices").glob("*.safetensors")]
    assert len(data) > 6 and {f"glowd/{path.relative_to(ROOT)}" for path in data} <= names
    assert {name.split("/")[0] for name in names} == {"glowd", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


def test_client_only_library_speaks(client_only: Venv, daemon: Daemon) -> None:
    program = """
import importlib.util, sys
import numpy as np
import clients, flow
from glowd.clients import Client
assert clients.THEIRS and flow.THEIRS
with Client(sys.argv[1]) as glow, glow.open(sinks=["socket"]) as stream:
    stream.send(np.random.default_rng(0).uniform(-9, -1, (40, 80)).astype(np.float32))
    stream.end()
    print(sum(chunk.samples for chunk in stream.audio(60)), importlib.util.find_spec("torch"))
"""
    result = client_only.python(program, daemon.endpoint)
    assert (result.stdout, result.stderr) == (f"{40 * 256} None\n", "")


def test_client_only_glowctl_reports_and_speaks(client_only: Venv, daemon: Daemon, tmp_path: Path) -> None:
    glowctl = ("glowctl", "--endpoint", daemon.endpoint)
    status = client_only.command(*glowctl, "status")
    assert status.returncode == 0 and status.stdout.startswith("glowd ready") and "rtisi" in status.stdout
    top = client_only.command("glowctl", "top", "--telemetry", f"ipc://{daemon.run_dir}/top.ipc", "-n", "1")
    assert top.returncode == 0 and "rtisi" in top.stdout
    np.save(tmp_path / "mel.npy", np.full((40, 80), -4, np.float32))
    sent = client_only.command(*glowctl, "send", tmp_path / "mel.npy", "--out", tmp_path / "audio.wav")
    assert sent.returncode == 0, sent.stderr
    assert soundfile.info(tmp_path / "audio.wav").frames == 40 * 256


def test_client_only_glowctl_names_a_missing_package(client_only: Venv, daemon: Daemon, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "speech.wav", np.zeros(22050, np.float32), 22050)
    result = client_only.command("glowctl", "--endpoint", daemon.endpoint, "send", tmp_path / "speech.wav")
    assert result.returncode == 1 and "needs the package soundfile" in result.stderr
    line = result.stderr.strip().rpartition("install it with: ")[2]
    assert line == f"{client_only.bin / 'python'} -m pip install soundfile"


def test_wheel_beside_python_daemon_keeps_both(wheel: Path, tmp_path: Path) -> None:
    def python_daemon_works() -> bool:
        return venv.python("import daemon, daemon.pidfile; daemon.DaemonContext").returncode == 0

    def glowd_works() -> list[str]:
        """What fails of our commands and modules."""
        checks = {command: venv.command(command, "--help") for command in COMMANDS}
        checks |= {f"glowd.{room}": venv.python(f"import glowd.{room}") for room in ROOMS}
        return [f"{name}: {result.stderr}" for name, result in checks.items() if result.returncode]

    venv = Venv(tmp_path, *CLIENT_PACKAGES, "python-daemon", "lockfile")
    before = {path.name for path in venv.site.iterdir()}
    assert python_daemon_works()
    venv.install(wheel)
    ours = {path.name for path in venv.site.iterdir()} - before - {"__pycache__"}
    assert ours == {"glowd", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert python_daemon_works() and glowd_works() == []
    venv.pip("uninstall", "-y", "glowd")
    assert python_daemon_works() and not (venv.site / "glowd").exists()
    venv.install(wheel)
    venv.pip("uninstall", "-y", "python-daemon")
    assert not python_daemon_works() and glowd_works() == []
