"""The ZeroMQ details that both clients share: options of the socket, its monitor, and the program's name."""

import re
import sys
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

LINGER_MS = 500
MONITORED_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


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
