"""Which socket a client uses: the one that was named, or its own user's."""

import os
from pathlib import Path

import pytest

from glowd.clients import errors
from glowd.clients.transport import client_endpoint


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


def test_named_socket_of_another_user_is_used(default_socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_another_user(monkeypatch)
    assert client_endpoint(f"ipc://{default_socket}") == f"ipc://{default_socket}"
    monkeypatch.setenv("GLOWD_RUN_DIR", str(default_socket.parent))
    assert client_endpoint("") == f"ipc://{default_socket}"
