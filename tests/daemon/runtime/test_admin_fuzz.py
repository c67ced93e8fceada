"""The socket of the supervisor, and its requests about keys, whatever bytes come: an answer, and the next one is served."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from glowd.clients import admin
from glowd.daemon.config import ServerSettings
from glowd.daemon.runtime.admin_server import MAX_LINE_BYTES, AdminServer
from glowd.daemon.runtime.key_requests import key_requests
from glowd.daemon.wire.admin import ADMIN_SOCKET, KEY_LIST, KEY_NEW, KEY_REVOKE, RELOAD
from tests.harness.mutations import mutated_json

REQUESTS = (
    {"request": RELOAD}, {"request": KEY_LIST}, {"request": KEY_REVOKE, "name": "desk"},
    {"request": KEY_NEW, "name": "desk", "roles": ["push"], "quotas": {"streams": 3}},
)  # fmt: skip


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    server = ServerSettings(endpoint="tcp://127.0.0.1:7766", keys=str(tmp_path / "keys"))
    found = AdminServer(tmp_path, key_requests(server))
    await found.renew()
    yield tmp_path
    found.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_line_is_answered_or_closed(directory: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for text in islice(mutated_json(seed, REQUESTS), 300):
        reader, writer = await asyncio.open_unix_connection(directory / ADMIN_SOCKET)
        writer.write(text + b"\n")
        answer = await reader.read()
        writer.close()
        if len(text) < MAX_LINE_BYTES:
            assert isinstance(json.loads(answer)["ok"], bool), text
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    assert (await asyncio.to_thread(admin.ask_for_keys, directory, KEY_LIST)).ok
