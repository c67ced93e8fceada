"""One daemon holds a run directory, also when the directory is emptied under it."""

import multiprocessing
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from glowd.daemon.config import ConfigError, ServerSettings
from glowd.daemon.runtime import claim as module
from glowd.daemon.runtime.claim import Claim, ClaimLostError, claim
from glowd.daemon.runtime.rundir import addresses, prepare_run_dir

ANOTHER = rf"another glowd \(process {os.getpid()}\) already runs in"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare_run_dir(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def held(directory: Path) -> Iterator[Claim]:
    with claim(directory, addresses(ServerSettings(), directory)) as held:
        yield held


def refused(directory: Path, match: str = ANOTHER) -> None:
    with pytest.raises(ConfigError, match=match), claim(directory, addresses(ServerSettings(), directory)):
        pytest.fail("claimed twice")


def test_second_claim_is_refused_and_names_the_first(tmp_path: Path) -> None:
    found = addresses(ServerSettings(), tmp_path)
    with claim(tmp_path, found):
        match = rf"another glowd \(process {os.getpid()}\) already runs in"
        with pytest.raises(ConfigError, match=match), claim(tmp_path, found):
            pytest.fail("claimed twice")
    with claim(tmp_path, found):
        pass


def test_lock_file_of_a_killed_daemon_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "glowd.lock").write_text("999999\n")
    with claim(tmp_path, addresses(ServerSettings(), tmp_path)):
        assert (tmp_path / "glowd.lock").read_text() == f"{os.getpid()}\n"


def test_address_of_another_listener_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as tcp:
        local.bind(str(tmp_path / "taken.ipc"))
        local.listen()
        for address in (f"ipc://{tmp_path}/taken.ipc", f"tcp://127.0.0.1:{tcp.getsockname()[1]}"):
            for server, setting in (
                (ServerSettings(endpoint=address), "endpoint"),
                (ServerSettings(telemetry=address), "telemetry"),
            ):
                match = rf"already listens at {address}; .*server\.{setting}"
                with pytest.raises(ConfigError, match=match), claim(tmp_path, addresses(server, tmp_path)):
                    pytest.fail("claimed an address that is taken")


def test_socket_file_of_a_killed_daemon_is_not_busy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "glowd.ipc"))
    assert (tmp_path / "glowd.ipc").exists()
    with claim(tmp_path, addresses(ServerSettings(), tmp_path)):
        pass


def test_claim_that_nothing_touched_is_not_renewed(held: Claim) -> None:
    assert not held.renew()


def test_emptied_directory_is_made_anew(held: Claim, directory: Path) -> None:
    for remove in (lambda: (directory / "glowd.lock").unlink(), lambda: shutil.rmtree(directory)):
        remove()
        assert held.renew() and not held.renew()
        assert (directory / "glowd.lock").read_text() == f"{os.getpid()}\n"
        assert directory.stat().st_mode & 0o777 == 0o700


def test_second_daemon_is_refused_before_the_first_has_renewed(held: Claim, directory: Path) -> None:
    shutil.rmtree(directory)
    prepare_run_dir(directory)
    refused(directory)
    refused(directory.parent / "run" / ".." / "run")  # another name of the same place


def test_second_daemon_is_refused_after_renewal_without_names(
    held: Claim, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(directory)
    held.renew()
    monkeypatch.setattr(module, "_bind_name", lambda _: None)  # as in a container with a network of its own
    refused(directory)


def test_lock_that_another_daemon_has_taken_is_lost(
    held: Claim, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_bind_name", lambda _: None)
    (directory / "glowd.lock").unlink()
    with (
        claim(directory, addresses(ServerSettings(), directory)),
        pytest.raises(
            ClaimLostError, match=r"was emptied, and cannot be held any more: another glowd .* server.run_dir"
        ),
    ):
        held.renew()


def test_directory_that_cannot_be_made_is_lost(held: Claim, directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("in the way")
    with pytest.raises(ClaimLostError, match="cannot make the run directory"):
        held.renew()


def test_directory_open_to_others_is_lost(held: Claim, directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(ClaimLostError, match="chmod 700"):
        held.renew()


def test_name_taken_by_another_user_is_no_claim(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may bind any name: that must not keep this user's daemon from starting."""
    taken = module._bind_name(directory)
    assert taken is not None
    with taken:
        monkeypatch.setattr(os, "getuid", lambda: 54321)
        assert module._bind_name(directory) is None


def test_claim_of_killed_daemon_is_free(directory: Path) -> None:
    def hold() -> None:
        Claim(directory).take()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    process.join()
    with claim(directory, addresses(ServerSettings(), directory)):
        pass
