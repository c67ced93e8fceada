"""Ask a running daemon of this user to reload its settings, or for keys, at the socket in its run directory.

Rules: standard library only; one request, one answer. The socket is for the user of the daemon, on its machine.
"""

import json
import socket
from pathlib import Path
from typing import Any

from glowd.clients.errors import DaemonGone, NotRunning
from glowd.daemon import wire
from glowd.daemon.wire.address import addresses_of
from glowd.daemon.wire.admin import ADMIN_SOCKET, RELOAD, Keys, Reloaded
from glowd.daemon.wire.json_text import read_json

RELOAD_S = 900.0
"""New voices are loaded before a reload is done."""
KEYS_S = 10.0


def run_dir_of(endpoint: str) -> Path:
    """The run directory of a daemon: where its socket is, or the usual one. Raises NotRunning for one elsewhere."""
    try:
        found = addresses_of(endpoint or wire.default_endpoint())
    except ValueError as fault:
        raise NotRunning(str(fault)) from None
    if len(found) == 1 and found[0].url.startswith("ipc://"):
        return Path(found[0].url.removeprefix("ipc://")).parent
    if endpoint:
        shown = ", ".join(one.shown for one in found)
        raise NotRunning(
            f"{shown} is not in a run directory; run this on the daemon's machine as its user, with GLOWD_RUN_DIR"
        )
    return wire.default_run_dir()


def reload_settings(run_dir: Path, timeout_s: float = RELOAD_S) -> Reloaded:
    """Reload; returns the outcome. Raises NotRunning, DaemonGone."""
    return Reloaded.from_map(ask(run_dir, {"request": RELOAD}, timeout_s))


def ask_for_keys(run_dir: Path, request: str, **asked: Any) -> Keys:
    """A request about keys (wire/admin.py). Raises NotRunning, DaemonGone."""
    return Keys.from_map(ask(run_dir, {"request": request} | asked, KEYS_S))


def ask(run_dir: Path, request: dict[str, Any], timeout_s: float) -> Any:
    """The answer to a request, a map. Raises NotRunning, DaemonGone."""
    path = run_dir / ADMIN_SOCKET
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(timeout_s)
        try:
            channel.connect(str(path))
        except OSError as error:
            raise NotRunning(
                f"no daemon answers at {path}: {error.strerror}; start glowd, or name its run directory: GLOWD_RUN_DIR=DIR"
            ) from error
        try:
            channel.sendall(json.dumps(request).encode() + b"\n")
            with channel.makefile("rb") as lines:
                return read_json(lines.readline())
        except (OSError, ValueError) as error:
            raise DaemonGone(
                f"the daemon at {path} ended during the {request['request']}; its log says why ({error})"
            ) from error
