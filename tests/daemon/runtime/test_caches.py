"""Machine code is kept where it can be written."""

import os
import shutil
from pathlib import Path

import pytest

from glowd.daemon.runtime.caches import can_write, place_caches

VARIABLES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "")  # so that what the test sets is undone
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def chosen() -> list[str]:
    return [os.environ[variable] for variable in VARIABLES]


def test_home_that_can_be_written_changes_nothing(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    place_caches(tmp_path / "run")
    assert chosen() == ["", ""] and list(home.iterdir()) == []


def test_home_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    place_caches(tmp_path / "run")
    assert chosen() == [f"{tmp_path}/run/numba", f"{tmp_path}/run/triton"]


def test_user_without_home_gets_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")  # what expanduser leaves where there is no home
    place_caches(tmp_path / "run")
    assert chosen() == [f"{tmp_path}/run/numba", f"{tmp_path}/run/triton"]


def test_own_choice_is_kept_if_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine" / "deep"))
    place_caches(tmp_path / "run")
    assert chosen()[0] == str(tmp_path / "mine" / "deep")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/none/mine")
    place_caches(tmp_path / "run")
    assert chosen()[0] == f"{tmp_path}/run/numba"


def test_cache_home_counts_for_numba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place_caches(tmp_path / "run")
    assert chosen() == ["", f"{tmp_path}/run/triton"]


def test_file_and_full_disk_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert can_write(tmp_path) and not can_write(tmp_path / "file") and not can_write(tmp_path / "file" / "under")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert not can_write(tmp_path)
