"""The unit files: systemd accepts them, and they run this installation with the arguments that were given."""

import argparse
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from glowd.daemon import app
from glowd.daemon.config import ConfigError
from glowd.daemon.config_reader import load
from glowd.daemon.service import unit as module
from glowd.daemon.service.unit import RELOAD_SINCE, quoted, stop_s, systemd_version, unit, watchdog_s

ROOT = Path(__file__).parents[2]
UNKNOWN_TYPE = re.compile(r".*: Failed to parse service type, ignoring: notify-reload$")
MOST_EXPOSED = {"": 7.0, "daemon": 3.0}
"""What `systemd-analyze security` may find, from 0 (nothing is exposed) to 10. A user's unit can close off less."""


def analyzed(*arguments: str) -> list[str]:
    """What systemd-analyze says."""
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()


def faults(text: str, directory: Path) -> list[str]:
    """What systemd finds wrong with a unit."""
    (directory / "glowd.service").write_text(text)
    return analyzed("verify", "--man=no", "--recursive-errors=no", str(directory / "glowd.service"))


@pytest.mark.parametrize("user", ["", "daemon"])
def test_unit_for_this_systemd_has_no_fault(user: str, tmp_path: Path) -> None:
    assert faults(unit(load(), ["--set", "log.level=debug"], user), tmp_path) == []


@pytest.mark.parametrize("user", ["", "daemon"])
def test_unit_that_reloads_has_no_other_fault(user: str, tmp_path: Path) -> None:
    """A systemd older than 253 knows all of it but the type; a newer one knows that too."""
    found = faults(unit(load(), [], user, version=RELOAD_SINCE), tmp_path)
    unknown = [line for line in found if UNKNOWN_TYPE.match(line)]
    assert found == unknown and len(unknown) == (systemd_version() < RELOAD_SINCE)


def test_planted_fault_is_found(tmp_path: Path) -> None:
    text = unit(load(), [], "daemon")
    assert "Unknown key" in faults(text.replace("KillMode", "KilMode"), tmp_path)[0]
    assert "is not executable" in faults(text.replace("/bin/kill", "/bin/kil").replace("=/", "=/none/"), tmp_path)[-1]


@pytest.mark.parametrize("user", ["", "daemon"])
def test_unit_exposes_little(user: str, tmp_path: Path) -> None:
    (tmp_path / "glowd.service").write_text(unit(load(), [], user))
    said = analyzed("security", "--offline=true", "--no-pager", str(tmp_path / "glowd.service"))
    level = re.search(r"exposure level for glowd.service: ([\d.]+)", said[-1])
    assert level and float(level[1]) <= MOST_EXPOSED[user], said[-1]


def settings_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_older_systemd_reloads_by_a_signal() -> None:
    old, new = (settings_of(unit(load(), [], version=version)) for version in (RELOAD_SINCE - 1, RELOAD_SINCE))
    assert (old["Type"], old["ExecReload"]) == ("notify", "/bin/kill -HUP $MAINPID")
    assert new["Type"] == "notify-reload" and "ExecReload" not in new


def test_compiled_code_may_run() -> None:
    for user in ("", "daemon"):
        assert "MemoryDenyWriteExecute" not in settings_of(unit(load(), [], user))
    assert "NUMBA_CACHE_DIR=%C/glowd/numba" in unit(load(), [], "daemon")


def test_command_runs_this_installation_with_its_arguments() -> None:
    command = settings_of(unit(load(), ["--config", "/etc/my glowd.toml", "--set", "a=5%$"]))["ExecStart"]
    assert command == f'{sys.executable} -P -m glowd.daemon.app --config "/etc/my glowd.toml" --set "a=5%%$$"'


@pytest.mark.parametrize(
    ("word", "in_unit"),
    [("--set", "--set"), ("/a/b-c.d", "/a/b-c.d"), ("50%", "50%%"), ("a b", '"a b"'), ('"\\', '"\\"\\\\"'), ("", '""')],
)
def test_words_are_quoted_where_they_must_be(word: str, in_unit: str) -> None:
    assert quoted(word) == in_unit


def test_sound_group_is_given_only_for_a_device() -> None:
    silent = load(None, ["speaker.enabled=false"])
    assert settings_of(unit(load(), [], "daemon"))["SupplementaryGroups"] == "audio"
    assert "SupplementaryGroups" not in unit(silent, [], "daemon")
    assert "SupplementaryGroups" not in unit(load(), [])


def test_recordings_elsewhere_may_be_written(tmp_path: Path) -> None:
    config = load(None, [f"files.directory={tmp_path}/my recordings"])
    assert settings_of(unit(config, [], "daemon"))["ReadWritePaths"] == f'"-{tmp_path}/my recordings"'
    assert "ReadWritePaths" not in unit(load(), [], "daemon")


def test_watchdog_waits_longer_than_glowd_needs_to_mend_itself() -> None:
    assert watchdog_s(load()) == 60
    assert watchdog_s(load(None, ["server.role_wait_s=100", "supervisor.watchdog_s=20"])) == 200


def test_orderly_stop_is_given_longer_than_it_may_take() -> None:
    """The roles stop stage by stage, and each may take its grace."""
    every = ("web.enabled=true", "wyoming.enabled=true", "cluster.ray=auto", "server.engines=tcp://127.0.0.1:1")
    for grace_s in (5.0, 60.0):
        config = load(None, [*every, f"supervisor.grace_s={grace_s}"])
        needed_s = grace_s * len(app.stages(config, Path("/run"), []))
        for user in ("", "daemon"):
            assert float(settings_of(unit(config, [], user))["TimeoutStopSec"]) > needed_s
    assert needed_s > 300, "all stages were counted"


@pytest.mark.parametrize(
    "setting", [r"TimeoutStopSec=(\d+)", r"terminationGracePeriodSeconds: (\d+)", r"--stop-timeout[= ](\d+)"]
)
def test_engine_is_given_longer_than_it_waits_for_its_streams(setting: str) -> None:
    parser = argparse.ArgumentParser()
    app.add_engine_arguments(parser)
    (given,) = re.findall(setting, (ROOT / "daemon/CLUSTER.md").read_text())
    assert int(given) > parser.get_default("leave_s")


def test_unit_of_an_engine_is_read_as_it_is_meant(tmp_path: Path) -> None:
    """systemd knows comments on lines of their own only: behind a value they are a part of it."""
    text = (ROOT / "daemon/CLUSTER.md").read_text()
    (block,) = re.findall(r"^    \[Service\]\n(?:    \S.*\n)+", text, re.MULTILINE)
    lines = [line.strip() for line in block.splitlines()]
    assert [line for line in lines if "#" in line and not line.startswith("#")] == []
    made = "\n".join(lines).replace("/opt/glowd/.venv/bin/glowd", sys.executable)
    assert faults(made, tmp_path) == []


def test_container_is_given_longer_than_its_stop_may_take() -> None:
    """podman and docker kill after 10 s if nothing else is said."""
    (given,) = re.findall(r"podman run -d .*--stop-timeout (\d+)", (ROOT / "daemon/README.md").read_text())
    assert int(given) >= stop_s(load())


def test_command_prints_the_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["service", "--user", "daemon", "--set", "server.max_clients=8"]) == 0
    printed = settings_of(capsys.readouterr().out)
    assert printed["User"] == "daemon" and printed["LimitNOFILE"] == "1088"


def test_install_writes_the_unit_and_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config/systemd/user/glowd.service"
    assert app.main(["service", "--install"]) == 0
    assert path.read_text() == unit(load(), [])
    said = capsys.readouterr().out
    assert str(path) in said and "systemctl --user daemon-reload && systemctl --user enable --now glowd" in said
    monkeypatch.setattr(module, "SYSTEM_PLACE", tmp_path / "system" / "glowd.service")
    assert app.main(["service", "--install", "--user", pwd.getpwall()[0].pw_name]) == 0
    assert "User=root" in (tmp_path / "system" / "glowd.service").read_text()


def test_install_for_an_unknown_user_says_how_to_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["service", "--install", "--user", "glowd-none"]) == 2
    assert "there is no user glowd-none; make one: sudo useradd --system" in capsys.readouterr().err


def test_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".config").write_text("in the way")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot write .*glowd.service: .*; run it as root, or without --install"):
        module.install("x", "")


def test_machine_without_systemd_gets_the_newest_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert settings_of(unit(load(), []))["Type"] == "notify-reload"
