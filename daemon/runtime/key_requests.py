"""Keys for clients on other machines, as the user of the daemon asks for them (wire/admin.py).

Rules: answers, no sockets. The supervisor does this, so that a daemon that runs always knows its keys.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from glowd.daemon.config import ServerSettings
from glowd.daemon.runtime.keys import KeyFileError, KeyFiles, keys_directory
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.admin import KEY_LIST, KEY_NEW, KEY_REVOKE, Keys
from glowd.daemon.wire.ip_version import host_of, is_wildcard

Answer = Callable[[dict[str, Any]], Awaitable[Keys]]


def key_requests(server: ServerSettings) -> dict[str, Answer]:
    """The requests about keys, for a daemon with these settings."""
    files = KeyFiles(keys_directory(server))

    async def new(asked: dict[str, Any]) -> Keys:
        name, roles, quotas = asked.get("name"), asked.get("roles"), asked.get("quotas", {})
        if not isinstance(name, str) or not isinstance(roles, list):
            return Keys(ok=False, text="a new key needs a name and roles")
        try:
            public, _ = files.server()
            place = place_of(roles, server)
            return Keys(ok=True, address=Address(place, "", files.new(name, roles, quotas), public).text(name))
        except KeyFileError as error:
            return Keys(ok=False, text=str(error))

    async def listed(_: dict[str, Any]) -> Keys:
        try:
            found = files.all()
        except KeyFileError as error:
            return Keys(ok=False, text=str(error))
        return Keys(
            ok=True, keys=[{"name": key.name, "roles": key.rights.roles, "quotas": key.quotas} for key in found]
        )

    async def revoke(asked: dict[str, Any]) -> Keys:
        try:
            files.revoke(str(asked.get("name")))
        except KeyFileError as error:
            return Keys(ok=False, text=str(error))
        return await listed(asked)

    return {KEY_NEW: new, KEY_LIST: listed, KEY_REVOKE: revoke}


def place_of(roles: list[Any], server: ServerSettings) -> str:
    """Where a client with such a key connects. Raises KeyFileError if there is no such place.

    An engine that listens does not: its place is its own, and only stands in its address.
    """
    if "engine" in roles and server.dial_engines and not server.engines:
        return server.dial_engines[0]
    return reachable("engines" if "engine" in roles else "endpoint", server)


def reachable(setting: str, server: ServerSettings) -> str:
    """The address at which other machines reach the tcp:// address of a setting. Raises KeyFileError if there is none."""
    endpoint: str = getattr(server, setting)
    if not endpoint.startswith("tcp://"):
        raise KeyFileError(
            f'this daemon has no tcp:// address; set server.{setting} = "tcp://HOST:PORT" and start it again'
        )
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return f"tcp://{socket.gethostname() if is_wildcard(host_of(endpoint)) else host}:{port}"
