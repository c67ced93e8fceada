"""The files of keys: private, whole, and read anew as soon as one changes."""

import asyncio
import errno
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from zmq.utils import z85

from glowd.daemon.config import ServerSettings
from glowd.daemon.runtime import keys as key_files
from glowd.daemon.runtime.key_requests import key_requests
from glowd.daemon.runtime.keys import CannotReadNow, KeyFileError, KeyFiles
from glowd.daemon.runtime.permissions import Rights
from glowd.daemon.wire.admin import KEY_NEW, Keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    return KeyFiles(tmp_path / "keys")


def public_of(secret: bytes) -> bytes:
    return z85.decode(zmq.curve_public(z85.encode(secret)))


def test_server_key_is_made_once_and_private(keys: KeyFiles) -> None:
    public, secret = keys.server()
    assert public_of(secret) == public and KeyFiles(keys.directory).server() == (public, secret)
    assert (keys.directory / "server.key").stat().st_mode & 0o777 == 0o600
    assert keys.directory.stat().st_mode & 0o777 == 0o700


def test_new_key_counts_at_once_and_a_revoked_one_no_more(keys: KeyFiles) -> None:
    reader = KeyFiles(keys.directory)
    assert reader.all() == []
    secret = keys.new("desk", ["push", "listen *"])
    found = reader.find(public_of(secret))
    assert found is not None and (found.name, found.rights) == ("desk", Rights(push=True, listen=("*",)))
    assert secret.hex() not in (keys.clients / "desk.key").read_text()
    assert (keys.clients / "desk.key").stat().st_mode & 0o777 == 0o600
    keys.revoke("desk")
    assert reader.find(public_of(secret)) is None


def test_name_role_or_key_that_cannot_be_is_refused(keys: KeyFiles) -> None:
    keys.new("desk", ["push"])
    with pytest.raises(KeyFileError, match="there is a key desk already; revoke it first"):
        keys.new("desk", ["push"])
    with pytest.raises(KeyFileError, match="must be letters, digits"):
        keys.new("../desk", ["push"])
    with pytest.raises(KeyFileError, match="'root' is no role"):
        keys.new("other", ["root"])
    with pytest.raises(KeyFileError, match="an engine takes no quotas, and streams, files was given"):
        keys.new("other", ["engine"], {"streams": 3, "files": 1})
    for name in ("nobody", "../server"):
        with pytest.raises(KeyFileError, match="keys: desk"):
            keys.revoke(name)


def test_file_that_others_could_have_written_lets_nobody_in(keys: KeyFiles, tmp_path: Path) -> None:
    secret = keys.new("desk", ["push"])
    path = keys.clients / "desk.key"
    path.chmod(0o644)
    os.utime(path, ns=(1, 1))
    assert keys.find(public_of(secret)) is None
    path.chmod(0o600)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert keys.all() == []
    keys.server()
    keys.directory.chmod(0o755)
    with pytest.raises(KeyFileError, match="nobody else can enter; chmod 700"):
        keys.server()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"public": 1, "roles": []}', '{"public": "xy", "roles": ["push"]}'])
def test_damaged_file_harms_no_other_key(keys: KeyFiles, text: str) -> None:
    keys.new("desk", ["push"])
    (keys.clients / "bad.key").write_text(text)
    (keys.clients / "bad.key").chmod(0o600)
    assert [key.name for key in keys.all()] == ["desk"]


def test_damaged_server_key_is_named(keys: KeyFiles) -> None:
    keys.server()
    (keys.directory / "server.key").write_text(json.dumps({"secret": "00"}))
    with pytest.raises(KeyFileError, match=r"server\.key holds no key; delete it"):
        keys.server()


def new_key(server: ServerSettings, *roles: str) -> Keys:
    """The answer to a request for a new key."""

    async def asked() -> Keys:
        return await key_requests(server)[KEY_NEW]({"name": "one", "roles": list(roles)})

    return asyncio.run(asked())


PLACES: list[tuple[dict[str, Any], str, str]] = [
    ({"engines": "tcp://10.0.0.5:7800", "dial_engines": ("tcp://gpu:7801",)}, "engine", "10.0.0.5:7800"),
    ({"dial_engines": ("tcp://gpu:7801",)}, "engine", "gpu:7801"),
    ({"endpoint": "tcp://10.0.0.5:7800", "dial_engines": ("tcp://gpu:7801",)}, "push", "10.0.0.5:7800"),
]
"""Settings, a role, and what an address says of the place."""


@pytest.mark.parametrize(("settings", "role", "place"), PLACES)
def test_address_of_a_new_key_says_where_its_owner_is(
    tmp_path: Path, settings: dict[str, Any], role: str, place: str
) -> None:
    answer = new_key(ServerSettings(**settings, keys=str(tmp_path / "keys")), role)
    assert answer.ok and f"@{place}#" in answer.address, answer.text


def test_key_of_an_engine_needs_a_place_to_join(tmp_path: Path) -> None:
    answer = new_key(ServerSettings(keys=str(tmp_path / "keys")), "engine")
    assert not answer.ok and 'set server.engines = "tcp://HOST:PORT"' in answer.text


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if everything had been written some time ago."""
    monkeypatch.setattr(key_files, "SETTLED_NS", -(1 << 62))


def test_directory_without_a_change_is_not_read_again(keys: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    public, reads, scandir = public_of(keys.new("desk", ["push"])), list[object](), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reads.append(path) or scandir(path))  # type: ignore[func-returns-value]
    for name in ("one", "two"):
        assert all(keys.find(public) for _ in range(100))
        assert keys.find(public_of(keys.new(name, ["push"])))
    keys.revoke("desk")
    assert not any(keys.find(public) for _ in range(100))
    assert len(reads) == 4, "at first, and after each change"


def test_two_changes_within_a_step_of_the_clock_are_seen(keys: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def coarse(path: Any, **options: Any) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_dev=1, st_ino=found.st_ino, st_ctime_ns=time.time_ns() >> 30 << 30, st_size=4096)

    with monkeypatch.context() as patched:
        first = public_of(keys.new("first", ["push"]))
        second = keys.new("second", ["push"])
        keys.revoke("second")
        patched.setattr(os, "stat", coarse)
        assert keys.find(first) and not keys.find(public_of(second))
        (keys.clients / "first.key").rename(keys.clients / "first")
        assert not keys.find(first)


def test_file_that_is_changed_in_its_place_counts(keys: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    public, path = public_of(keys.new("desk", ["push"])), keys.clients / "desk.key"
    assert keys.current()[public].rights == Rights(push=True)
    path.write_text(path.read_text().replace("push", "metrics"))
    assert keys.look()[public].rights == keys.current()[public].rights == Rights(metrics=True)


def test_key_is_not_lost_while_no_file_can_be_opened(keys: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    public = public_of(keys.new("desk", ["push"]))
    for name in ("open", "scandir"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
            with pytest.raises(CannotReadNow, match="at the moment: Too many open files"):
                keys.find(public)
        assert keys.find(public)
