"""`glowd doctor --service`: what a unit needs, checked as the user who will run it."""

import os
import pwd
import resource
import shutil
import sys
from pathlib import Path

import pytest

from glowd.daemon import app
from glowd.daemon.config import ConfigError
from glowd.daemon.config_reader import load
from glowd.daemon.doctor import Finding
from glowd.daemon.service import as_user, checks

LIGHT = ("--set", "voices={r={engine='rtisi-la'}}", "--set", "speaker.enabled=false")
OTHER = pwd.getpwnam("daemon")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: the directories of the unit, sound, home and session."""
    tmp_path.chmod(0o755)
    for name in ("RUN", "CACHE", "STATE"):
        monkeypatch.setattr(as_user, name, tmp_path / "unit" / name.lower())
    monkeypatch.setattr(checks, "SOUND_DEVICES", tmp_path / "snd")
    monkeypatch.setattr(checks, "LINGER", tmp_path / "linger")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_doctor_checks_machine_and_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--service", *LIGHT]) == 0
    said = capsys.readouterr().out
    for name in ("engine:r: ready after", "systemd: version", "cache: compiled code is kept in", "linger: services of"):
        assert f"{name}" in said
    assert "sound access" not in said


def test_cache_that_cannot_be_written_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_cache(load()).state == "ok"
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none")
    found = checks.check_cache(load())
    assert found.state == "note" and "/proc/none cannot be written" in found.text and "CacheDirectory" in found.remedy


def test_recordings_that_cannot_be_written_are_noted(tmp_path: Path) -> None:
    assert checks.check_recordings(tmp_path / "new").state == "ok"
    assert checks.check_recordings(Path("/proc/none")).remedy.startswith("--set files.directory=DIR")


def test_limits_of_a_user_are_compared_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 1100))
    assert checks.check_files(load()).text == "at most 1100 open files; server.max_clients = 64 may take 1536"
    assert checks.check_files(load()).state == "note"
    assert checks.check_files(load(None, ["server.max_clients=4"])).state == "ok"
    assert checks.check_realtime().state == "ok"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    assert "a user's unit gets at most 0" in checks.check_realtime().text


def sound() -> tuple[str, str]:
    found: Finding = checks.check_sound_access()
    return found.state, found.text + " " + found.remedy


def test_sound_is_that_of_the_session_or_of_the_group(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sound()[0] == "missing" and "run it as a user's service, or --set speaker.enabled=false" in sound()[1]
    (places / "snd").mkdir()
    (places / "snd" / "pcmC0D0p").touch()
    assert sound() == ("ok", f"{places}/snd/pcmC0D0p can be used ")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert sound()[0] == "missing" and "sudo usermod -aG audio" in sound()[1]
    (places / "session" / "pulse").mkdir(parents=True)
    (places / "session" / "pulse" / "native").touch()
    assert sound() == ("ok", f"a sound server listens at {places}/session/pulse/native ")


def test_service_that_ends_with_the_session_is_noted(places: Path) -> None:
    assert checks.check_linger().state == "note"
    (places / "linger").mkdir()
    (places / "linger" / pwd.getpwuid(os.getuid()).pw_name).touch()
    assert checks.check_linger().state == "ok"


def test_machine_without_systemd_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert checks.check_systemd().state == "missing"


SEEN = (
    "import os, pathlib, sys; here = pathlib.Path.cwd()\n"
    "assert (os.getuid(), os.getgid()) == (here.stat().st_uid, here.stat().st_gid), os.getuid()\n"
    "assert here.stat().st_mode & 0o777 == 0o700 and pathlib.Path(os.environ['GLOWD_RUN_DIR']).is_dir()\n"
    f"assert os.environ['HOME'] == {OTHER.pw_dir!r} and 'XDG_RUNTIME_DIR' not in os.environ\n"
    "(here / 'file').write_text('x'); sys.exit(7)"
)


def test_command_runs_as_the_user_in_directories_of_the_unit(places: Path) -> None:
    """As root; any other user is told that only root can."""
    command = ("/usr/bin/env", "python3", "-c", SEEN)
    if os.geteuid() == 0:
        for folder in list(places.parents)[:3]:  # another one for each of several processes that test
            folder.chmod(0o755)
        assert as_user.run_as(OTHER, command, with_sound=True) == 7
        assert list((places / "unit").iterdir()) == [], "what was made is removed"
    else:
        with pytest.raises(ConfigError, match="only root can check what user daemon may do"):
            as_user.run_as(OTHER, command, with_sound=True)


def test_directory_that_is_there_is_kept(places: Path) -> None:
    (places / "mine").mkdir()
    with as_user.made(places / "mine", OTHER):
        pass
    assert (places / "mine").exists()


def test_user_who_cannot_read_glowd_is_told_where_to_install(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *_: None)

    def run(command: tuple[str, ...], **_: object) -> None:
        assert command[:2] == (sys.executable, "-P") and command[4:6] == ("doctor", "--service")
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(as_user.subprocess, "run", run)
    assert app.main(["doctor", "--service", "--user", "daemon", *LIGHT]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"glowd: user daemon cannot run {sys.executable}: Permission denied; install glowd")
    assert "/opt/glowd" in said


def test_unknown_user_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--user", "nobody-here"]) == 2
    assert "there is no user nobody-here; make one: sudo useradd" in capsys.readouterr().err


def test_group_of_sound_is_added_where_the_unit_does() -> None:
    own = os.getgrouplist("daemon", OTHER.pw_gid)
    assert as_user.groups_of(OTHER, with_sound=False) == own
    assert set(as_user.groups_of(OTHER, with_sound=True)) >= set(own)
