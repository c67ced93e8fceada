"""Which socket a client uses: the one that was named, or its own user's."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.transport import client_endpoint
from tests.fakes.daemon import FakeDaemon
from tests.harness.waiting import WAIT_S, until


@pytest.fixture
def default_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("GLOWD_ENDPOINT", "GLOWD_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    socket = tmp_path / "glowd" / "glowd.ipc"
    socket.parent.mkdir()
    socket.touch()
    return socket


def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)


def test_own_default_socket_is_used(default_socket: Path) -> None:
    assert client_endpoint("") == f"ipc://{default_socket}"
    default_socket.unlink()
    assert client_endpoint("") == f"ipc://{default_socket}", "no daemon yet"


def test_default_socket_of_another_user_is_refused(default_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_another_user(monkeypatch)
    with pytest.raises(errors.ForeignSocket, match=f"belongs to user {os.getuid() - 1}, .* name it: --endpoint ipc://"):
        client_endpoint("")


def test_link_of_another_user_is_refused(default_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could let it refer to another place after it was looked at."""
    mine, own_dir = os.getuid(), default_socket.parent.with_name("own")
    default_socket.parent.rename(own_dir)
    default_socket.parent.symlink_to(own_dir)
    theirs, real = default_socket.parent, Path.lstat

    def lstat(path: Path) -> os.stat_result:
        found = list(real(path))
        return os.stat_result([*found[:4], mine + 1, *found[5:]]) if path == theirs else os.stat_result(found)

    assert client_endpoint("")
    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(errors.ForeignSocket, match=f"{theirs} belongs to user {mine + 1}"):
        client_endpoint("")


def test_folder_in_which_others_may_write_is_refused(default_socket: Path) -> None:
    default_socket.parent.chmod(0o770)
    with pytest.raises(errors.ForeignSocket, match=r"mode is drwxrwx---; close it \(chmod 700 "):
        client_endpoint("")
    default_socket.parent.chmod(0o755)
    assert client_endpoint("")


@pytest.fixture
def default_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the default socket, of which nobody has said where it is, with a path that is short enough."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        for variable in ("GLOWD_ENDPOINT", "GLOWD_RUN_DIR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        folder = Path(name, "glowd")
        folder.mkdir(0o700)
        yield folder


def at_default(folder: Path) -> FakeDaemon:
    daemon = FakeDaemon(folder)
    (folder / "fake.ipc").rename(folder / "glowd.ipc")
    return daemon


@pytest.mark.parametrize("named", [False, True])
def test_daemon_of_another_user_that_appears_later_is_refused(
    default_dir: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    first = at_default(default_dir)
    with Client(f"ipc://{default_dir}/glowd.ipc" if named else "", timeout_s=WAIT_S) as glow:
        glow.status()
        first.stop()
        until(lambda: not glow._connection.usable, "the loss")
        as_another_user(monkeypatch)
        with at_default(default_dir):
            if named:
                assert glow.status().state == "ready"
                return
            with pytest.raises(errors.ForeignSocket, match=r"the program that listens at .* belongs to user"):
                glow.status()


async def test_async_client_refuses_another_users_daemon(default_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glow = AsyncClient(timeout_s=WAIT_S)
    as_another_user(monkeypatch)
    with at_default(default_dir):
        with pytest.raises(errors.ForeignSocket, match="belongs to user"):
            await glow.connect()
        await glow.close()


def test_named_socket_of_another_user_is_used(default_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_another_user(monkeypatch)
    assert client_endpoint(f"ipc://{default_socket}") == f"ipc://{default_socket}"
    monkeypatch.setenv("GLOWD_RUN_DIR", str(default_socket.parent))
    assert client_endpoint("") == f"ipc://{default_socket}"
