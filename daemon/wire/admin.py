"""What the user of the daemon may ask of its supervisor, at a socket in the run directory: to reload the settings, and to make,
list and revoke keys for clients on other machines.

    -> {"request": "reload"}
    <- {"ok": true, "settings": ["log.level"], "added": [], ...}        one JSON map a line; then the connection is closed

Rules of this file: no I/O. The socket is not part of the wire protocol, and is never reached from another machine: who can open
the run directory, which is private, may use it.
"""

from dataclasses import dataclass, field
from typing import Any

from glowd.daemon.wire.records import Record

__all__ = ["ADMIN_SOCKET", "KEY_LIST", "KEY_NEW", "KEY_REVOKE", "QUOTAS", "RELOAD", "Keys", "Reloaded"]

ADMIN_SOCKET = "admin.sock"
RELOAD = "reload"
KEY_NEW, KEY_LIST, KEY_REVOKE = "key new", "key list", "key revoke"
"""With `name`, `roles` and `quotas`; nothing; `name`."""
QUOTAS = {
    "clients": "clients at once", "streams": "streams at once", "listens": "streams that its clients listen to",
    "messages_s": "messages a second", "requests_s": "requests a second", "frames_s": "frames a second",
    "files": "recordings", "file_mb": "MB of recordings",
}  # fmt: skip
"""What a key may have its own quotas of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded(Record):
    """The outcome of a reload. `ok` False: nothing has changed, and `text` says why.

    `settings` have new values; `added`, `removed` and `changed` are voices; `needs_restart`: settings that differ and have
    kept their old values.
    """

    ok: bool
    text: str = ""
    settings: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    needs_restart: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What happened, for people."""
        facts = {
            "settings": self.settings,
            "voices added": self.added,
            "voices removed (streams that are open go on)": self.removed,
            "voices changed (streams that are open go on as before)": self.changed,
            "needs a restart, and is as before": self.needs_restart,
        }
        return [f"{what}: {', '.join(names)}" for what, names in facts.items() if names] or ["nothing has changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Record):
    """The outcome of a request about keys. `ok` False: nothing has changed, and `text` says why.

    `address`: the whole address of the client whose key was made, secret included. `keys`: {"name", "roles", "quotas"} of each.
    """

    ok: bool
    text: str = ""
    address: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
