"""The daemon, as the cluster role asks it: for its state as any client, and for keys as its user.

Rules: the client library and nothing else of the daemon. A daemon that is away is asked again at the next look.
"""

from pathlib import Path

from glowd.clients import admin
from glowd.clients.client import Client
from glowd.clients.errors import GlowdError
from glowd.daemon.wire.admin import KEY_NEW, KEY_REVOKE, Keys
from glowd.daemon.wire.telemetry import Snapshot

ENGINE_ROLE = "engine"


class DaemonClient:
    """A Gateway (manager.py). Owner: one thread. What fails raises GlowdError."""

    def __init__(self, endpoint: str, run_dir: Path) -> None:
        self._endpoint, self._run_dir = endpoint, run_dir
        self._client: Client | None = None

    def snapshot(self) -> Snapshot:
        """The daemon's state."""
        try:
            return Snapshot.from_map(self._connected().status().info)
        except GlowdError:
            self.close()
            raise

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client:
            self._client.close()
        self._client = None

    def new_address(self, key: str) -> str:
        """Where an engine joins, with a new key of this name; an old one counts no more."""
        self.revoke(key)
        return self._keys(KEY_NEW, name=key, roles=[ENGINE_ROLE]).address

    def revoke(self, key: str) -> None:
        """The key counts no more; nothing if there is none."""
        admin.ask_for_keys(self._run_dir, KEY_REVOKE, name=key)

    def _connected(self) -> Client:
        self._client = self._client or Client(self._endpoint, name="cluster", reconnect_s=0)
        return self._client

    def _keys(self, request: str, **asked: object) -> Keys:
        told = admin.ask_for_keys(self._run_dir, request, **asked)
        if not told.ok:
            raise GlowdError(told.text)
        return told
