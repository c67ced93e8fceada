"""What one peer may take of the daemon: by the settings, or by its key.

Rules: no I/O. A peer is a process of this machine or, over TCP, a key, or without keys a machine (gateway/clients/peers.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from glowd.daemon.config import FileSettings, ServerSettings

SHARE = 0.75
"""Of all places, that one peer may take at most, unless the settings say another number."""
SETTINGS = {
    "clients": "server.max_peer_clients",
    "streams": "server.max_peer_streams",
    "listens": "server.max_peer_listens",
    "messages_s": "server.max_peer_messages_s",
    "requests_s": "server.max_peer_requests_s",
    "frames_s": "server.max_peer_frames_s",
    "files": "files.max_peer_files",
    "file_mb": "files.max_peer_mb",
}
"""The setting of each quota. `glowctl key new` has an option of its name."""
MOST = 1_000_000


class QuotaError(ValueError):
    """A quota that cannot be. The text names it, the value, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one peer may take; `frames_s` 0: any number. `of_key`: what its key says, and not the settings."""

    clients: int
    streams: int
    listens: int
    messages_s: int
    requests_s: int
    frames_s: int
    files: int
    file_mb: int
    of_key: frozenset[str] = frozenset()

    @classmethod
    def of(cls, server: ServerSettings, files: FileSettings) -> "Quotas":
        """Those of the settings."""
        return cls(
            clients=share_of(server.max_clients, server.max_peer_clients),
            streams=share_of(server.max_streams, server.max_peer_streams),
            listens=server.max_peer_listens,
            messages_s=server.max_peer_messages_s,
            requests_s=server.max_peer_requests_s,
            frames_s=server.max_peer_frames_s,
            files=files.max_peer_files,
            file_mb=files.max_peer_mb,
        )

    def changed(self, given: Mapping[str, int]) -> "Quotas":
        """With what a key says."""
        return replace(self, **given, of_key=frozenset(given))

    def source(self, name: str) -> str:
        """Where a quota is set, for people."""
        return f"{name} of its key" if name in self.of_key else SETTINGS[name]


def share_of(places: int, setting: int) -> int:
    """How many of all places one peer may take; `setting` 0: SHARE of them, so that others find one."""
    return setting or math.ceil(SHARE * places)


def checked(given: Any) -> dict[str, int]:
    """The quotas of a key. Raises QuotaError."""
    if not isinstance(given, dict):
        raise QuotaError(f"quotas must be a map; got {given!r:.80}")
    names = [field.name for field in fields(Quotas) if field.name in SETTINGS]
    for name, value in given.items():
        if name not in names:
            raise QuotaError(f"{name!r:.80} is no quota; allowed: {', '.join(names)}")
        if type(value) is not int or not 1 <= value <= MOST:
            raise QuotaError(f"the quota {name} must be a whole number from 1 to {MOST}; got {value!r:.80}")
    return given
