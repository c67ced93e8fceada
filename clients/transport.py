"""The ZeroMQ details that both clients share: options of the socket, its monitor, and the heartbeat's numbers."""

import re
import secrets
import sys
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

PING_EVERY_S = 5.0
SILENCE_S = 20.0
"""A daemon that has said nothing for so long, though it was pinged, is gone."""

LINGER_MS = 500
WATCHED = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


def configure(socket: "zmq.Socket[Any]") -> None:
    """Options for a client's DEALER. It never drops what it sends; the reader's queue is bounded by the daemon."""
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)


def why_lost(event: list[bytes], endpoint: str) -> str:
    """What a monitor event means."""
    if parse_monitor_message(event)["event"] == zmq.EVENT_DISCONNECTED:
        return f"the daemon at {endpoint} closed the connection"
    return f"what listens at {endpoint} does not speak this protocol, or does not admit this client"


def program_name() -> str:
    """A client name for a program that did not choose one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(sys.argv[0]).stem).strip("-.")[:40] or "python"


def stream_name(client: str, number: int) -> str:
    """A stream name that no other client uses, on this machine or another."""
    return f"{client[:40]}-{secrets.token_hex(3)}-{number}"
