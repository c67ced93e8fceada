"""The socket of the engines of other machines: who is dialled, and how it is read and written.

Rules: moves messages; joining.py says what they mean. What goes wrong with one message stays with it.
"""

import contextlib
import logging
from collections.abc import Callable
from functools import partial

import zmq

from glowd.daemon import engine_link
from glowd.daemon.config import Config
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.joining import Joining
from glowd.daemon.runtime.sockets import Context, Remote, joined_socket, receive_of_client, send, sender_of
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import read_ipv6

MOST = 64
"""Messages that are read before other sockets have their turn."""

log = logging.getLogger("glowd.gateway")


class JoinedSocket:
    """Engines come to `remote`, or are dialled. Owner: the gateway's only thread. Raises OSError as joined_socket does."""

    def __init__(self, context: Context, remote: Remote) -> None:
        self.socket, self._dialled = joined_socket(context, remote), set[str]()

    def use(self, config: Config) -> None:
        """Dial the engines of a configuration, again and again while they are away, and no others."""
        wanted = set(config.server.dial_engines)
        for endpoint in sorted(self._dialled - wanted):
            self.socket.disconnect(endpoint)
            log.info("%s is dialled no more", endpoint)
        for endpoint in sorted(wanted - self._dialled):
            self.socket.setsockopt(zmq.IPV6, read_ipv6(endpoint) or False)
            self.socket.connect(endpoint)
            log.info("an engine that listens at %s is dialled", endpoint)
        self._dialled = wanted

    def read(self, joining: Joining, now_ns: Callable[[], int]) -> None:
        """Handle what engines have sent, at most MOST messages."""
        with contextlib.suppress(zmq.Again):
            for _ in range(MOST):
                route, parts = receive_of_client(self.socket)
                with contained("a message of an engine of another machine", lambda _: None):
                    joining.handle(route.bytes, partial(_key_of, route), parts, now_ns())

    def send(self, route: bytes, message: Message) -> bool:
        """Send by a connection; returns whether it is there."""
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            send(self.socket, route, engine_link.encode(message))
            return True
        return False


def _key_of(route: zmq.Frame) -> str:
    """The name of the key with which a connection was let in."""
    return sender_of(route).key
