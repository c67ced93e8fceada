"""The doctor names what is missing and the command that mends it."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zmq

from glowd.daemon import doctor
from glowd.daemon.config import Speaker, WaveGlowVoice, load
from glowd.daemon.speaker.device import NO_PORTAUDIO, DeviceError, PortAudioOutput


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
def test_the_command_is_the_one_of_this_machine(
    manager: str, user: int, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(manager, monkeypatch)
    monkeypatch.setattr(os, "getuid", lambda: user)
    assert doctor.install(doctor.PORTAUDIO) == command


def failing_with(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise DeviceError(text)

    monkeypatch.setattr(PortAudioOutput, "open", fail)


def test_a_missing_portaudio_comes_with_the_command_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    only("dnf", monkeypatch)
    failing_with(NO_PORTAUDIO, monkeypatch)
    found = doctor.sound(Speaker())
    assert found.state == "missing" and found.text == "the PortAudio library is missing"
    assert found.remedy.endswith("dnf install portaudio")


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with("speaker.device = 'x' is none of the output devices 0 'pulse'", monkeypatch)
    found = doctor.sound(Speaker(device="x"))
    assert found.state == "missing" and "0 'pulse'" in found.text and "--set speaker.device=NAME" in found.remedy


def test_a_device_that_opens_is_described_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(PortAudioOutput, "open", lambda _: calls.append("open"))
    monkeypatch.setattr(PortAudioOutput, "close", lambda _: calls.append("close"))
    found = doctor.sound(Speaker(device="pulse", latency_ms=80.0))
    assert (found.state, found.text) == ("ok", "pulse at 22050 Hz, latency 80 ms")
    assert calls == ["open", "close"]


def test_a_speaker_that_is_switched_off_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with("must not be opened", monkeypatch)
    assert doctor.sound(Speaker(enabled=False)).state == "ok"


def test_a_missing_espeak_is_only_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    only("apt-get", monkeypatch)
    found = doctor.espeak()
    assert found.state == "note" and found.remedy.endswith("apt-get install espeak-ng")


def test_an_old_libzmq_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.libzmq().state == "ok"
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 4))
    found = doctor.libzmq()
    assert found.state == "missing" and found.remedy.endswith("-m pip install -U pyzmq")


def test_cuda_is_missing_only_where_a_voice_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert doctor.torch(load()).state == "ok"
    found = doctor.torch(load(None, ["voices.glow.devices=['cuda:1']"]))
    assert found.state == "missing" and "finds no CUDA device, and is asked for cuda:1 (voice glow)" in found.text
    assert found.remedy.startswith("--set \"voices.glow.devices=['auto']\"")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"H{number}00")
    assert doctor.torch(load(None, ["voices.glow.devices=['cuda', 'cuda:1']"])).text.endswith(
        ", cuda:0 (H000), cuda:1 (H100)"
    )
    found = doctor.torch(load(None, ["voices.glow.devices=['cuda:1', 'cuda:2', 'cuda:3', 'cpu']"]))
    assert "finds cuda:0 (H000), cuda:1 (H100), and is asked for cuda:2 (voice glow), cuda:3 (voice glow)" in found.text


def test_numba_is_missing_only_where_a_voice_insists_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.compiler(load())
    assert found.state == "ok" and "causal voices are compiled" in found.text
    monkeypatch.setitem(sys.modules, "numba", None)
    found = doctor.compiler(load())
    assert (
        found.state == "note" and "voices run in torch" in found.text and found.remedy.endswith("-m pip install numba")
    )
    found = doctor.compiler(load(None, ["voices.glow.backend=compiled"]))
    assert found.state == "missing" and "voice glow" in found.text and "voices.glow.backend=torch" in found.remedy


def test_triton_is_looked_for_where_a_voice_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load(None, ["voices.glow.backend=triton", "speaker.enabled=false"])
    monkeypatch.setitem(sys.modules, "triton", None)
    (found,) = [finding for finding in doctor.doctor(asked) if finding.name == "triton"]
    assert found.state == "missing" and "cannot be imported, but voice glow asks" in found.text
    assert "-m pip install triton, or --set voices.glow.backend=auto" in found.remedy
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = doctor.kernels("glow")
    assert (found.state, found.remedy) == ("missing", "--set voices.glow.backend=auto") and "CUDA" in found.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert doctor.kernels("glow").state == "ok"


def test_engines_that_would_take_every_core_are_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert doctor.cores(load()).state == "ok"
    assert "lower voices.NAME.threads" in doctor.cores(load(None, ["voices.glow.threads=4"])).remedy
    assert doctor.cores(load(None, ["voices.glow.devices=['cpu', 'cpu', 'auto', 'cuda:0']"])).state == "ok"
    assert doctor.cores(load(None, ["voices.glow.devices=['cpu', 'cpu', 'cpu', 'cpu']"])).state == "note"


def test_real_time_priority_is_a_hint_and_never_an_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    assert doctor.real_time().state == "note" and "rtprio" in doctor.real_time().remedy
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    assert doctor.real_time().state == "ok"


def test_the_run_directory_is_looked_at_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.private_directory(tmp_path / "a/b").text.endswith("will be made")
    assert not (tmp_path / "a").exists()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    found = doctor.private_directory(tmp_path / "open")
    assert found.state == "missing" and f"chmod 700 {tmp_path}/open" in found.remedy
    (tmp_path / "open").chmod(0o700)
    assert doctor.private_directory(tmp_path / "open").state == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be made" in doctor.private_directory(tmp_path / "other").text


def test_the_doctor_looks_at_everything_it_promises() -> None:
    names = [finding.name for finding in doctor.doctor(load(None, ["speaker.enabled=false"]))]
    assert names == ["python", "torch", "numba", "libzmq", "sound", "espeak-ng", "cores", "priority", "run_dir"]


def test_a_checkpoint_is_described_by_its_header() -> None:
    found = doctor.checkpoint("glow", WaveGlowVoice())
    assert (found.name, found.state) == ("voices.glow", "ok") and "flows" in found.text


def test_check_names_an_address_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_busy", lambda address: address.endswith("glowd.ipc"))
    found = {finding.name: finding.state for finding in doctor.check(load(None, [f"server.run_dir={tmp_path}/run"]))}
    assert found == {"voices.glow": "ok", "run_dir": "ok", "server.endpoint": "missing", "server.telemetry": "ok"}
