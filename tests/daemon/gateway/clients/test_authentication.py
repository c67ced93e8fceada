"""Keys that are refused are told of once, with what to do, however often they come."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from glowd.daemon.gateway.clients.authentication import CLIENT_DOMAIN, ENGINE_DOMAIN, TELEMETRY_DOMAIN, Authentication
from glowd.daemon.runtime.keys import KeyFiles, public_of


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Authentication]:
    with zmq.Context() as context:
        made = Authentication(context, KeyFiles(tmp_path / "keys"))
        yield made
        made.stop()


def new_key(asked: Authentication, name: str, role: str) -> bytes:
    return z85.encode(public_of(asked.keys.new(name, [role])))


def test_refused_key_is_logged_once_with_what_to_do(asked: Authentication, caplog: pytest.LogCaptureFixture) -> None:
    pusher, stranger = new_key(asked, "pusher", "push"), z85.encode(b"x" * 32)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert asked.callback(CLIENT_DOMAIN, pusher)
            assert not asked.callback(ENGINE_DOMAIN, pusher)
            assert not asked.callback(TELEMETRY_DOMAIN, pusher)
            assert not asked.callback(ENGINE_DOMAIN, stranger)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert said[0] == "the key pusher may not join as an engine: it has not the role engine"
    assert said[2].startswith("a peer of server.engines or dial_engines with an unknown or revoked key is turned away")
    assert "glowctl key new" in said[2]


def test_key_that_is_revoked_again_is_logged_again(asked: Authentication, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key(asked, "one", "push")
    assert asked.callback(CLIENT_DOMAIN, key)
    asked.keys.revoke("one")
    for _ in range(3):
        assert not asked.callback(CLIENT_DOMAIN, key)
    assert len(caplog.records) == 1
