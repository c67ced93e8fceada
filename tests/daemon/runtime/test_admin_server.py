"""The socket at which a reload is asked for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from glowd.clients import admin
from glowd.clients.errors import DaemonGone, NotRunning
from glowd.daemon.runtime.admin_server import AdminServer
from glowd.daemon.wire.admin import ADMIN_SOCKET, Reloaded

OUTCOME = Reloaded(ok=True, settings=["log.level"], removed=["b"], needs_restart=["web.port"])


async def outcome(_: object) -> Reloaded:
    return OUTCOME


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    found = AdminServer(tmp_path, {"reload": outcome})
    await found.renew()
    yield found
    found.close()


async def asked(directory: Path, text: bytes) -> object:
    reader, writer = await asyncio.open_unix_connection(directory / ADMIN_SOCKET)
    writer.write(text)
    answer = json.loads(await reader.readline())
    assert await reader.read() == b""
    writer.close()
    return answer


async def test_reload_is_done_and_answered(server: AdminServer, tmp_path: Path) -> None:
    assert await asyncio.to_thread(admin.reload_settings, tmp_path) == OUTCOME


@pytest.mark.parametrize("text", [b"\n", b"x\n", b"[]\n", b'{"request": "stop"}\n', b'{"request": []}\n'])
async def test_what_is_no_request_is_told(server: AdminServer, tmp_path: Path, text: bytes) -> None:
    answer = await asked(tmp_path, text)
    assert isinstance(answer, dict) and not answer["ok"] and answer["text"].endswith("is no request; known: reload")


async def test_peer_that_leaves_or_says_too_much_harms_nobody(server: AdminServer, tmp_path: Path) -> None:
    for text in (b"", b"x" * 10_000):
        _, writer = await asyncio.open_unix_connection(tmp_path / ADMIN_SOCKET)
        writer.write(text)
        writer.close()
    assert await asyncio.to_thread(admin.reload_settings, tmp_path) == OUTCOME


async def test_socket_that_was_deleted_is_made_anew(server: AdminServer, tmp_path: Path) -> None:
    await server.renew()
    (tmp_path / ADMIN_SOCKET).unlink()
    await server.renew()
    assert await asyncio.to_thread(admin.reload_settings, tmp_path) == OUTCOME


def test_absent_daemon_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=rf"no daemon answers at {tmp_path}/admin.sock: .*GLOWD_RUN_DIR=DIR"):
        admin.reload_settings(tmp_path)


async def test_daemon_that_ends_meanwhile_is_said(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / ADMIN_SOCKET)
    with pytest.raises(DaemonGone, match="ended during the reload; its log says why"):
        await asyncio.to_thread(admin.reload_settings, tmp_path)
    server.close()


def test_run_directory_is_that_of_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLOWD_RUN_DIR", str(tmp_path))
    assert admin.run_dir_of("") == tmp_path
    assert admin.run_dir_of("ipc:///x/y.ipc") == Path("/x")
    with pytest.raises(NotRunning, match="on the daemon's machine as its user"):
        admin.run_dir_of("tcp://host:1")


def test_outcome_is_told_in_lines() -> None:
    assert OUTCOME.lines() == [
        "settings: log.level",
        "voices removed (streams that are open go on): b",
        "needs a restart, and is as before: web.port",
    ]
    assert Reloaded(ok=True).lines() == ["nothing has changed"]


def test_address_elsewhere_is_shown_without_its_secret() -> None:
    secret = "5" * 64
    with pytest.raises(NotRunning, match=r"glowd://desk@host:1, ipc:///x is not in a run directory") as caught:
        admin.run_dir_of(f"glowd://desk:{secret}@host:1#{'0' * 64},ipc:///x")
    assert secret not in str(caught.value)
