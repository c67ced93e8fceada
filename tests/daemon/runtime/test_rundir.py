"""The run directory is private, or it is refused."""

from pathlib import Path

import pytest

from glowd.daemon.config import ConfigError, ServerSettings
from glowd.daemon.runtime.rundir import addresses, prepare_run_dir, run_dir


def test_run_directory_comes_from_setting_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOWD_RUN_DIR", "/a")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/b")
    assert run_dir(ServerSettings(run_dir="/c")) == Path("/c")
    assert run_dir(ServerSettings()) == Path("/a")
    monkeypatch.delenv("GLOWD_RUN_DIR")
    assert run_dir(ServerSettings()) == Path("/b/glowd")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(run_dir(ServerSettings())).startswith("/tmp/glowd-")


def test_addresses_are_in_the_run_directory_unless_configured() -> None:
    found = addresses(ServerSettings(endpoint="tcp://127.0.0.1:9"), Path("/r"))
    assert (found.clients, found.telemetry) == ("ipc:///r/glowd.ipc", "ipc:///r/top.ipc")
    assert (found.remote_clients, found.remote_telemetry) == ("tcp://127.0.0.1:9", "")
    assert addresses(ServerSettings(endpoint="ipc:///a"), Path("/r")).clients == "ipc:///a"
    assert (found.engine, found.speaker) == ("ipc:///r/engine.ipc", "ipc:///r/speaker.ipc")


def test_run_directory_is_made_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    prepare_run_dir(directory)
    prepare_run_dir(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_run_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        prepare_run_dir(tmp_path / "open")


def test_file_or_link_as_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match=r"cannot make the run directory .*/file"):
        prepare_run_dir(tmp_path / "file")
    with pytest.raises(ConfigError, match="not a directory that this user owns"):
        prepare_run_dir(tmp_path / "link")


def test_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path of the run directory is too long"):
        prepare_run_dir(tmp_path / ("x" * 100))
