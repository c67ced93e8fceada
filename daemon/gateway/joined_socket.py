"""The socket at which engines of other machines join: how it is read and written.

Rules: moves messages; joining.py says what they mean. What goes wrong with one message stays with it.
"""

import contextlib
from collections.abc import Callable
from functools import partial

import zmq

from glowd.daemon import engine_link
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.joining import Joining
from glowd.daemon.runtime.sockets import Socket, receive_of_client, send, sender_of
from glowd.daemon.wire.fields import Message


def read_joined(socket: Socket, joining: Joining, most: int, now_ns: Callable[[], int]) -> None:
    """Handle what engines have sent, at most so many messages."""
    with contextlib.suppress(zmq.Again):
        for _ in range(most):
            route, parts = receive_of_client(socket)
            with contained("a message of an engine of another machine", lambda _: None):
                joining.handle(route.bytes, partial(_key_of, route), parts, now_ns())


def send_joined(socket: Socket, route: bytes, message: Message) -> bool:
    """Send by a connection; returns whether it is there."""
    with contextlib.suppress(zmq.Again, zmq.ZMQError):
        send(socket, route, engine_link.encode(message))
        return True
    return False


def _key_of(route: zmq.Frame) -> str:
    """The name of the key with which a connection was let in."""
    return sender_of(route).key
