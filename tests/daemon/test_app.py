"""The `glowd` command: which roles it starts, what it prints, what it refuses."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glowd.daemon import app
from glowd.daemon.config import Config
from glowd.daemon.config_reader import load
from glowd.daemon.runtime.claim import claim
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.rundir import addresses, prepare_run_dir
from tests.harness.waiting import WAIT_S

READY_THEN_WAIT = (
    "import json, sys; print(json.dumps({'ready': {'device': 'two words'}}), flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLOWD_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def test_stages_are_gateway_then_engines_then_speaker() -> None:
    stages = app.stages(load(), Path("/r"), ["--set", "log.level=debug"])
    assert [[spec.name for spec in stage] for stage in stages] == [
        ["gateway"], ["engine:glow", "engine:rtisi", "engine:griffin-lim"], ["speaker"],
    ]  # fmt: skip
    assert stages[1][2].command == (
        sys.executable, "-P", "-m", "glowd.daemon.engine", "--run-dir", "/r", "--engine", "griffin-lim",
        "--set", "log.level=debug",
    )  # fmt: skip


def test_only_the_default_voice_is_needed() -> None:
    stages = app.stages(load(None, ["voices.glow.default=false", "voices.rtisi.default=true"]), Path("/r"), [])
    optional = [spec.name for stage in stages for spec in stage if spec.is_optional]
    assert optional == ["engine:glow", "engine:griffin-lim"]
    assert [spec.name for stage in stages for spec in stage if spec.wants_news] == ["gateway"]


def test_each_device_of_a_voice_has_its_own_engine() -> None:
    config = load(None, ["speaker.enabled=false", "voices={glow={engine='waveglow',devices=['cuda:1','cpu']}}"])
    _, engines = app.stages(config, Path("/r"), [])
    assert [(spec.name, spec.command[-2:]) for spec in engines] == [
        ("engine:glow/0", ("--engine", "glow/0")),
        ("engine:glow/1", ("--engine", "glow/1")),
    ]
    assert app.summary(config).startswith("voices glow (waveglow, 2 engines); default glow; ")


def test_disabled_speaker_is_not_started() -> None:
    stages = app.stages(load(None, ["speaker.enabled=false"]), Path("/r"), [])
    assert [spec.name for stage in stages for spec in stage] == [
        "gateway",
        "engine:glow",
        "engine:rtisi",
        "engine:griffin-lim",
    ]


def test_web_process_is_last_and_optional_when_enabled() -> None:
    *_, last = app.stages(load(None, ["web.enabled=true"]), Path("/r"), [])
    assert [(spec.name, spec.is_optional, spec.command[4]) for spec in last] == [("web", True, "--run-dir")]
    assert last[0].command[3] == "glowd.daemon.web"


def test_wyoming_process_is_optional_when_enabled() -> None:
    *_, last = app.stages(load(None, ["web.enabled=true", "wyoming.enabled=true"]), Path("/r"), [])
    assert [(spec.name, spec.is_optional, spec.command[3]) for spec in last] == [
        ("wyoming", True, "glowd.daemon.wyoming")
    ]


def test_cluster_process_is_optional_when_there_is_a_cluster() -> None:
    settings = ["cluster.ray=auto", "server.engines=tcp://127.0.0.1:7800"]
    *_, last = app.stages(load(None, settings), Path("/r"), [])
    assert [(spec.name, spec.is_optional, spec.command[3]) for spec in last] == [
        ("cluster", True, "glowd.daemon.cluster")
    ]


def test_role_gets_the_absolute_path_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("[server]\nmax_streams = 2\n")
    seen: list[Any] = []

    def run(config: Config, arguments: list[str]) -> int:
        seen.append((config.server.max_streams, arguments))
        return 0

    monkeypatch.setattr(app, "run", run)
    assert app.main(["--config", "my.toml", "--set", "log.level=error", "--set", "server.credit_ms=500"]) == 0
    assert seen == [
        (2, ["--config", f"{tmp_path}/my.toml", "--set", "log.level=error", "--set", "server.credit_ms=500"])
    ]


FAILS = 'print(\'{"failed": "no such checkpoint"}\')'


def fake_role(name: str, script: str, optional: bool = False) -> RoleSpec:
    return RoleSpec(name, (sys.executable, "-c", script), is_optional=optional)


def fake_stages(*roles: RoleSpec) -> Callable[..., list[list[RoleSpec]]]:
    return lambda *_: [list(roles)]


def test_ready_line_has_the_facts_of_the_daemon(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engines = [fake_role(f"engine:{name}", READY_THEN_WAIT) for name in ("glow", "rtisi")]
    away = fake_role("engine:griffin-lim", FAILS, optional=True)
    monkeypatch.setattr(app, "stages", fake_stages(*engines, away, fake_role("speaker", READY_THEN_WAIT)))
    announce = app.announce

    def announce_and_stop(*words: Any) -> None:
        announce(*words)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(app, "announce", announce_and_stop)
    assert app.main(["run", "--set", "log.level=error"]) == 0  # without the voice that is away
    words = shlex.split(capfd.readouterr().out)
    facts = dict(word.split("=", 1) for word in words[2:])
    assert words[:2] == ["glowd", "ready"] and float(facts.pop("seconds")) < WAIT_S
    assert facts == {
        "endpoint": f"ipc://{run_dir}/glowd.ipc",
        "telemetry": f"ipc://{run_dir}/top.ipc",
        "voices": "glow,rtisi",
        "device": "two words",
    }


def test_role_that_cannot_start_is_the_last_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "stages", fake_stages(fake_role("speaker", FAILS)))
    assert app.main([]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "glowd: speaker could not start: no such checkpoint"


def test_second_daemon_is_refused_with_status_2(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_run_dir(run_dir)
    with claim(run_dir, addresses(load().server, run_dir)):
        assert app.main(["run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"another glowd (process {os.getpid()}) already runs in {run_dir}" in error


@pytest.mark.parametrize("command", ["run", "check", "doctor"])
def test_wrong_configuration_is_one_line_and_status_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([command, "--set", "server.max_strems=1"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("glowd: unknown setting server.max_strems; did you mean server.max_streams?")


def test_check_prints_ok_and_what_would_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["check"]) == 0
    said = capsys.readouterr().out
    assert f"ipc://{run_dir}/glowd.ipc is free" in said
    assert said.splitlines()[-1].startswith(
        "OK: voices glow (waveglow), rtisi (rtisi-la), griffin-lim (griffinlim); default glow; 16 streams"
    )


def test_check_names_a_missing_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["check", "--json", "--set", f"voices.glow.checkpoint={tmp_path}/none.safetensors"]) == 1
    found = json.loads(capsys.readouterr().out)
    problems = [finding for finding in found["findings"] if finding["state"] == "missing"]
    assert not found["ok"] and [problem["name"] for problem in problems] == ["voices.glow"]
    assert f"{tmp_path}/none.safetensors does not exist" in problems[0]["text"]


def test_missing_package_is_named_in_one_line(run_dir: Path) -> None:
    command, package = "check", "torch"
    program = f"import sys; sys.modules[{package!r}] = None; from glowd.daemon.app import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", program, command], text=True, capture_output=True, timeout=WAIT_S, check=False
    )
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    expected = f"glowd: this command needs the package {package}, which is not installed; install it with: "
    assert process.stderr == f"{expected}{sys.executable} -m pip install {package}\n"


def test_closed_pipe_ends_check_quietly(run_dir: Path) -> None:
    command = [sys.executable, "-m", "glowd.daemon.app", "check"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert (process.stderr.read(), process.wait(WAIT_S)) == ("", 1)


def test_version_is_that_of_the_package() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "glowd.daemon.app", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "glowd 0.1.0\n"


def test_supervisor_loads_no_torch_zmq_or_sound_library() -> None:
    script = "import sys, glowd.daemon.app; print([m for m in ('torch', 'sounddevice', 'zmq', 'librosa') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
