"""The connection of an engine that gateways dial: the first has the engine as long as it is alive, and the others are told who
that is.

Rules: as in connection.py. Whoever dials must own the server key in the engine's address: strangers get no further than the
handshake, and what ZeroMQ tells of their attempts is ignored, for they could else end the connection of the gateway. So two
gateways have the same server key, as two daemons of one user, or one that was started again.

A gateway that is silent for SILENT_S, or whose connection ends, is gone. Then every connection ends with this one; those that
wait dial again, and the first has the engine.
"""

import contextlib
import time
from collections.abc import Sequence

import zmq

from glowd.daemon import engine_link
from glowd.daemon.engine.connection import Connection
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.runtime.sockets import Context, listening_socket, numbered_route, receive_of_client, send, sender_of
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import wants_ipv6

EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
SILENT_S, TELL_S = 3.0, 1.0
"""A gateway sends a probe every second; and as often the others are told that they wait."""


class ListeningConnection(Connection):
    """That of an engine which gateways dial."""

    def __init__(self, context: Context, address: Address, listen: str) -> None:
        """`listen`: tcp://HOST:PORT. Raises CannotStart for a place that is taken."""
        socket, self._next = listening_socket(context, address)
        super().__init__(socket, EVENTS)
        self._holder, self._address, self._name, self._descriptor = b"", "", "", -1
        self._heard_ns = self._told_ns = 0
        self._waiting: dict[bytes, int] = {}
        """Gateways that wait, and when each could last be sent to."""
        try:
            socket.setsockopt(zmq.IPV6, wants_ipv6(listen))
            socket.bind(listen)
        except zmq.ZMQError as error:
            self.__exit__()
            raise CannotStart(f"--listen: cannot listen on {listen}: {error.strerror}", settings=True) from error

    def _take_event(self, event: int, value: int) -> None:
        now_ns = time.monotonic_ns()
        if event == zmq.EVENT_DISCONNECTED:
            self.is_lost = self.is_lost or value == self._descriptor
            return
        route, self._next = numbered_route(self._next), self._next + 1
        if self._holder:
            self._waiting[route], self._told_ns = now_ns, 0
        else:
            self._holder, self._heard_ns, self.is_open = route, now_ns, True

    def received(self) -> list[Message]:
        """As of any connection; and those that wait are told so."""
        found = super().received()
        for message in found:
            if isinstance(message, engine_link.Joined):
                self._name = message.gateway
        if self._holder and self._looked_ns - self._heard_ns > 1e9 * SILENT_S:
            self.is_lost = True
        if self._looked_ns - self._told_ns > 1e9 * TELL_S:
            self._told_ns = self._looked_ns
            self._tell(self._looked_ns)
        return found

    def _tell(self, now_ns: int) -> None:
        taken = engine_link.encode(engine_link.Taken(self.gateway[:500]))
        for route, sent_ns in list(self._waiting.items()):
            with contextlib.suppress(zmq.ZMQError):
                send(self._socket, route, taken)
                self._waiting[route] = now_ns
            if now_ns - sent_ns > 1e9 * SILENT_S:
                del self._waiting[route]

    @property
    def gateway(self) -> str:
        """The one that has the engine."""
        place = f" at {self._address}" if self._address else ""
        return f"the daemon {self._name}{place}" if self._name else f"another daemon{place}"

    def _read(self) -> Sequence[bytes]:
        while True:
            route, parts = receive_of_client(self._socket)
            if route.bytes != self._holder:  # it has nothing to say
                continue
            self._heard_ns = time.monotonic_ns()
            if self._descriptor < 0:
                sender = sender_of(route)
                self._address, self._descriptor = sender.address, sender.descriptor
            return parts

    def _put(self, parts: list[bytes]) -> None:
        try:
            send(self._socket, self._holder, parts)
        except zmq.Again:
            raise
        except zmq.ZMQError as error:
            self.is_lost = self.is_lost or self._descriptor >= 0
            raise zmq.Again from error
