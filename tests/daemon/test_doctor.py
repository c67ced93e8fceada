"""The doctor names what is missing and the command that fixes it."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zmq

from glowd.daemon import app, doctor
from glowd.daemon.config import Config, SpeakerSettings
from glowd.daemon.config_reader import load
from glowd.daemon.config_voices import WaveGlowSettings
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.speaker.device import DeviceError, PortAudioMissing, PortAudioOutput


def only(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose only known program is `program`."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == program else None)


@pytest.mark.parametrize(
    ("manager", "user", "command"),
    [
        ("apt-get", 0, "apt-get install libportaudio2"),
        ("apt-get", 1000, "sudo apt-get install libportaudio2"),
        ("dnf", 1000, "sudo dnf install portaudio"),
        ("pacman", 1000, "sudo pacman -S portaudio"),
        ("brew", 1000, "brew install portaudio"),
        ("none", 1000, "install libportaudio2 with this system's package manager"),
    ],
)
def test_install_command_fits_the_machine(
    manager: str, user: int, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(manager, monkeypatch)
    monkeypatch.setattr(os, "getuid", lambda: user)
    assert doctor.install(doctor.PORTAUDIO) == command


def failing_with(error: DeviceError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(PortAudioOutput, "open", fail)


def test_missing_portaudio_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    only("dnf", monkeypatch)
    failing_with(PortAudioMissing("the PortAudio library is missing", "install it: ..."), monkeypatch)
    found = doctor.check_sound(SpeakerSettings())
    assert found.state == "missing" and found.text == "the PortAudio library is missing"
    assert found.remedy.endswith("dnf install portaudio")


def test_unknown_sound_device_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(DeviceError("speaker.device = 'x' is not one of the output devices 0 'pulse'"), monkeypatch)
    found = doctor.check_sound(SpeakerSettings(device="x"))
    assert found.state == "missing" and "0 'pulse'" in found.text and "--set speaker.device=NAME" in found.remedy


def test_working_sound_device_is_described_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(PortAudioOutput, "open", lambda _: calls.append("open"))
    monkeypatch.setattr(PortAudioOutput, "close", lambda _: calls.append("close"))
    found = doctor.check_sound(SpeakerSettings(device="pulse", latency_ms=80.0))
    assert (found.state, found.text) == ("ok", "pulse at 48000 Hz, latency 80 ms")
    assert calls == ["open", "close"]


def test_disabled_speaker_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(DeviceError("must not be opened"), monkeypatch)
    assert doctor.check_sound(SpeakerSettings(enabled=False)).state == "ok"


def test_missing_espeak_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    only("apt-get", monkeypatch)
    found = doctor.check_espeak()
    assert found.state == "note" and found.remedy.endswith("apt-get install espeak-ng")


def test_old_libzmq_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_libzmq().state == "ok"
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
    found = doctor.check_libzmq()
    assert found.state == "missing" and found.remedy.endswith("-m pip install -U pyzmq")


def test_absent_cuda_is_missing_only_if_a_voice_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor.check_torch(load()).state == "ok"
    found = doctor.check_torch(load(None, ["voices.glow.devices=['cuda:1']"]))
    assert (
        found.state == "missing"
        and "finds no CUDA device; the configuration asks for cuda:1 (voice glow)" in found.text
    )
    assert found.remedy.startswith("--set \"voices.glow.devices=['auto']\"")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"H{number}00")
    assert doctor.check_torch(load(None, ["voices.glow.devices=['cuda', 'cuda:1']"])).text.endswith(
        ", cuda:0 (H000), cuda:1 (H100)"
    )
    found = doctor.check_torch(load(None, ["voices.glow.devices=['cuda:1', 'cuda:2', 'cuda:3', 'cpu']"]))
    assert (
        "finds cuda:0 (H000), cuda:1 (H100); the configuration asks for cuda:2 (voice glow), cuda:3 (voice glow)"
        in found.text
    )


def test_absent_numba_is_missing_only_if_a_voice_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.check_numba(load())
    assert found.state == "ok" and "causal voices on a CPU are compiled" in found.text
    monkeypatch.setitem(sys.modules, "numba", None)
    found = doctor.check_numba(load())
    assert (
        found.state == "note" and "voices run in torch" in found.text and found.remedy.endswith("-m pip install numba")
    )
    found = doctor.check_numba(load(None, ["voices.glow.backend=compiled"]))
    assert found.state == "missing" and "voice glow" in found.text and "voices.glow.backend=torch" in found.remedy


def test_triton_is_checked_if_a_voice_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load(None, ["voices.glow.backend=triton", "speaker.enabled=false"])
    monkeypatch.setitem(sys.modules, "triton", None)
    (found,) = [finding for finding in doctor.examine_machine(asked, []) if finding.name == "triton"]
    assert found.state == "missing" and "cannot be imported, but voice glow asks" in found.text
    assert "-m pip install triton, or --set voices.glow.backend=auto" in found.remedy
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = doctor.check_triton("glow")
    assert (found.state, found.remedy) == ("missing", "--set voices.glow.backend=auto") and "CUDA" in found.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert doctor.check_triton("glow").state == "ok"


def test_engines_that_use_every_core_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert doctor.check_cores(load()).state == "ok"
    assert "lower voices.NAME.threads" in doctor.check_cores(load(None, ["voices.glow.threads=4"])).remedy
    assert doctor.check_cores(load(None, ["voices.glow.devices=['cpu', 'cpu', 'auto', 'cuda:0']"])).state == "ok"
    assert doctor.check_cores(load(None, ["voices.glow.devices=['cpu', 'cpu', 'cpu', 'cpu']"])).state == "note"


def test_refused_realtime_priority_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    assert doctor.check_priority().state == "note" and "rtprio" in doctor.check_priority().remedy
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    assert doctor.check_priority().state == "ok"


def test_run_directory_is_checked_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_run_dir(tmp_path / "a/b").text.endswith("will be made")
    assert not (tmp_path / "a").exists()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    found = doctor.check_run_dir(tmp_path / "open")
    assert found.state == "missing" and f"chmod 700 {tmp_path}/open" in found.remedy
    (tmp_path / "open").chmod(0o700)
    assert doctor.check_run_dir(tmp_path / "open").state == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be made" in doctor.check_run_dir(tmp_path / "other").text


def test_examine_machine_runs_every_check() -> None:
    engines = [engine("rtisi", READY)]
    names = [finding.name for finding in doctor.examine_machine(load(None, ["speaker.enabled=false"]), engines)]
    checks = ["python", "torch", "numba", "libzmq", "sound", "espeak-ng", "cores", "priority", "run_dir"]
    assert names == [*checks, "engine:rtisi"]


READY = "import json; print(json.dumps({'ready': {'device': 'cpu', 'streams': 9}}))"
FAILS = "import json, sys; print(json.dumps({'failed': 'no home for its cache'})); sys.exit(1)"


def engine(name: str, script: str, optional: bool = False) -> RoleSpec:
    return RoleSpec(f"engine:{name}", (sys.executable, "-c", script), is_optional=optional)


def tried(config: Config, *engines: RoleSpec) -> list[tuple[str, str]]:
    return [(found.state, f"{found.text} -> {found.remedy}") for found in doctor.check_voices(config, engines)]


def test_voices_are_started_and_ended_as_at_start_up(tmp_path: Path) -> None:
    config = load(None, [f"server.run_dir={tmp_path}/run"])
    good, (state, reason) = tried(config, engine("glow", READY), engine("rtisi", FAILS, optional=True))
    assert good[0] == "ok" and re.match(r"ready after \d+\.\d s on cpu, capacity 9 -> ", good[1])
    assert state == "missing" and reason == (
        "cannot start: no home for its cache -> mend this, or remove the voice; glowd starts without it"
    )
    assert not (tmp_path / "run").exists()


def test_default_voice_that_cannot_start_is_told_apart(tmp_path: Path) -> None:
    ((state, reason),) = tried(load(None, [f"server.run_dir={tmp_path}/run"]), engine("glow", FAILS))
    assert state == "missing"
    assert reason.endswith(
        "does not start without its default voice, or make another one the default: rtisi, griffin-lim"
    )


def test_voices_are_not_tried_without_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ((state, reason),) = tried(load(None, [f"server.run_dir={tmp_path}/file/run"]), engine("glow", READY))
    assert state == "missing" and reason.startswith("not tried: cannot make the run directory")


def test_engine_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    spec = RoleSpec("engine:glow", ("/nonexistent",))
    ((state, reason),) = tried(load(None, [f"server.run_dir={tmp_path}/run"]), spec)
    assert state == "missing" and "/nonexistent cannot be run: No such file" in reason


@pytest.mark.process
def test_trial_runs_the_engine_of_start_up(tmp_path: Path) -> None:
    """The real command of a small voice, and one whose checkpoint is not there."""
    settings = ["server.run_dir=" + str(tmp_path / "run"), "voices.glow.checkpoint=/none.safetensors"]
    config = load(None, [*settings, "voices.glow.default=false", "voices.rtisi.default=true"])
    arguments = [word for setting in (*settings, "voices.glow.default=false", "voices.rtisi.default=true")
                 for word in ("--set", setting)]  # fmt: skip
    engines = app.stages(config, tmp_path / "run", arguments)[1]
    found = {finding.name: finding for finding in doctor.check_voices(config, engines[:2])}
    assert found["engine:rtisi"].state == "ok" and found["engine:glow"].state == "missing"
    assert "cannot start: checkpoint /none.safetensors does not exist" in found["engine:glow"].text


def test_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python().text.endswith(f"as user {doctor.user_name()}")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert doctor.user_name() == "54321"


def test_checkpoint_is_described_by_its_header() -> None:
    found = doctor.check_checkpoint("glow", WaveGlowSettings())
    assert (found.name, found.state) == ("voices.glow", "ok") and "flows" in found.text


def test_address_that_is_taken_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_busy", lambda address: address.endswith("glowd.ipc"))
    found = {
        finding.name: finding.state for finding in doctor.examine_config(load(None, [f"server.run_dir={tmp_path}/run"]))
    }
    voices = {"voices.glow": "ok", "voices.rtisi": "ok", "voices.griffin-lim": "ok"}
    assert found == voices | {"run_dir": "ok", "server.endpoint": "missing", "server.telemetry": "ok"}


def test_ports_for_other_machines_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_busy", lambda address: address.endswith(":7803"))
    ports = {"endpoint": 7801, "telemetry": 7802, "engines": 7803}
    settings = [f"server.{name}=tcp://127.0.0.1:{port}" for name, port in ports.items()]
    found = {
        (finding.name, finding.text.split()[0]): finding.state
        for finding in doctor.examine_config(load(None, [f"server.run_dir={tmp_path}/run", *settings]))
    }
    for name, port in ports.items():
        assert found[f"server.{name}", f"tcp://127.0.0.1:{port}"] == ("missing" if name == "engines" else "ok")


def test_mel_format_of_a_voice_is_checked_by_its_name() -> None:
    found = doctor.check_mel("rtisi", "cosyvoice2")
    assert found.state == "ok" and found.text == "cosyvoice2: 24000 Hz, 80 bands, hop 480"
    wrong = doctor.check_mel("rtisi", "styletts2")
    assert wrong.state == "missing" and "has energies" in wrong.text and wrong.remedy == "set voices.rtisi.mel"


def test_web_process_is_checked_if_it_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = load(None, ["web.enabled=true", f"web.port={taken.getsockname()[1]}"])
        found = {finding.name: finding for finding in doctor.examine_config(busy)}
        assert (found["web"].state, found["web"].text) == ("missing", f"port {busy.web.port} is taken")
        assert "web.port" in found["web"].remedy
    assert doctor.check_web(busy.web).text == f"the page will be at http://127.0.0.1:{busy.web.port}"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "prometheus_client" else name)
    absent = doctor.check_web(busy.web)
    assert (absent.state, absent.text) == ("missing", "not installed: prometheus-client")
    assert "pip install prometheus-client, or --set web.enabled=false" in absent.remedy
    assert "web" not in {finding.name for finding in doctor.examine_config(load())}
