"""The ZeroMQ details that both clients share: options of the socket, its monitor, and the program's name."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.clients import errors
from glowd.daemon import wire

LINGER_MS = 500
MONITORED_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


def client_endpoint(given: str) -> str:
    """The address to connect to: the one given, else the default. Raises ForeignSocket as `check_owner` does."""
    if not given:
        check_owner(wire.default_endpoint())
    return given or wire.default_endpoint()


def check_owner(endpoint: str) -> None:
    """Raises ForeignSocket if a socket that nobody has named, and so is only expected there, is another user's.

    Its folder too must be the user's own, because its owner could replace the socket. An address, or a run directory, that
    is named in the environment was chosen.
    """
    chosen = os.environ.get("GLOWD_ENDPOINT") or os.environ.get("GLOWD_RUN_DIR")
    if chosen or not endpoint.startswith("ipc:///"):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    for place in (path.parent, path):
        if place.exists() and (owner := place.stat().st_uid) != os.getuid():
            raise errors.ForeignSocket(
                f"{place} belongs to user {owner}, and this program runs as user {os.getuid()}; if you trust it, name it: "
                f"--endpoint {endpoint}, or GLOWD_ENDPOINT"
            )


def configure(socket: "zmq.Socket[Any]") -> None:
    """Set the options of a client's DEALER. It never drops a message; the daemon's credit bounds both queues."""
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)


def loss_reason(event: list[bytes], endpoint: str) -> str:
    """What a monitor event says about the connection, for people."""
    if parse_monitor_message(event)["event"] == zmq.EVENT_DISCONNECTED:
        return f"the daemon at {endpoint} closed the connection"
    return f"the program that listens at {endpoint} does not speak this protocol, or rejects this client"


def program_name() -> str:
    """A client name for a program that did not choose one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(sys.argv[0]).stem).strip("-.")[:40] or "python"
