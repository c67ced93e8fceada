"""The socket of the engines of other machines: who is dialled, and how it is read and written.

Rules: moves messages; joining.py says what they mean. What goes wrong with one message stays with it.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.daemon import engine_link
from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.dialling import EVENTS, Dialling
from glowd.daemon.gateway.joining import Joining
from glowd.daemon.runtime.sockets import Context, Remote, joined_socket, receive_of_client, send, sender_of
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import read_ipv6, wants_ipv6

ANY_BYTES = 1 << 62
"""What an engine may have sent that was not read yet: it has a key, and sends what it was asked for."""
REDIAL_NS = 1_000_000_000
MOST = 16
"""Messages that are read before what they have caused is sent."""

log = logging.getLogger("glowd.gateway")


class JoinedSocket:
    """Engines come to `remote`, or are dialled. Owner: the gateway's only thread. Raises OSError as joined_socket does."""

    def __init__(self, context: Context, remote: Remote) -> None:
        self.socket, self.dialling = joined_socket(context, remote), Dialling()
        self.visitors = Visitors()
        self.visitors.client_bytes = ANY_BYTES
        self.monitor = self.socket.get_monitor_socket(EVENTS | zmq.EVENT_ACCEPTED)
        self._wanted, self._redialled_ns = set[str](), 0
        self._dialled: dict[str, bool] = {}
        """The places that are dialled, and whether by IPv6."""
        self._lookups: SimpleQueue[tuple[str, bool]] = SimpleQueue()

    def use(self, config: Config) -> None:
        """Dial the engines of a configuration, again and again while they are away, and no others."""
        wanted = set(config.server.dial_engines)
        for endpoint in sorted(self._wanted - wanted):
            if self._dialled.pop(endpoint, None) is not None:
                self._hang_up(endpoint)
            self.dialling.end(endpoint)
            log.info("%s is dialled no more", endpoint)
        for endpoint in sorted(wanted - self._wanted):
            self.dialling.begin(endpoint)
            log.info("an engine that listens at %s is dialled", endpoint)
            self._look_up(endpoint)
        self._wanted = wanted
        self._dial_found()

    def _look_up(self, endpoint: str) -> None:
        """Find out whether a place is reached by IPv6; the resolver is asked in a thread, because it may take seconds."""
        if (ipv6 := read_ipv6(endpoint)) is not None:
            self._lookups.put((endpoint, ipv6))
            return
        work = partial(_look_up, endpoint, self._lookups)
        threading.Thread(target=work, name="resolver", daemon=True).start()

    def _dial_found(self) -> None:
        """Dial the places that were looked up."""
        with contextlib.suppress(Empty):
            while True:
                endpoint, ipv6 = self._lookups.get_nowait()
                if endpoint in self._wanted and endpoint not in self._dialled:
                    self._dialled[endpoint] = ipv6
                    self._dial(endpoint)

    def _dial(self, endpoint: str) -> None:
        self.socket.setsockopt(zmq.IPV6, self._dialled[endpoint])
        self.socket.connect(endpoint)

    def _hang_up(self, endpoint: str) -> None:
        with contextlib.suppress(zmq.ZMQError):  # ZeroMQ may have given it up
            self.socket.disconnect(endpoint)

    def tick(self, now_ns: int) -> None:
        """Dial who is to be dialled now."""
        self._dial_found()
        self._hear()
        self.visitors.tick(now_ns)
        if now_ns - self._redialled_ns >= REDIAL_NS:
            self._redialled_ns = now_ns
            for endpoint in self.dialling.take_given_up():
                self._hang_up(endpoint)
                self._dial(endpoint)

    def _hear(self) -> None:
        """Read what ZeroMQ tells of the places that are dialled."""
        with contextlib.suppress(zmq.Again):
            while True:
                told = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
                if told["event"] in (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED):
                    self.visitors.note(told["event"], told["value"])
                self.dialling.take(told["event"], told["value"], told["endpoint"].decode())

    def read(self, joining: Joining, now_ns: Callable[[], int]) -> None:
        """Handle what engines have sent, at most MOST messages."""
        self._hear()  # by which connection a place is reached
        with contextlib.suppress(zmq.Again):
            for _ in range(MOST):
                route, parts = receive_of_client(self.socket)
                with contained("a message of an engine of another machine", lambda _: None):
                    joining.handle(route.bytes, partial(sender_of, route), parts, now_ns())

    def heard(self, descriptor: int, taken_by: str) -> None:
        """An engine has said by this connection that it joins, or which gateway has it."""
        if not taken_by:
            self.visitors.greeted(descriptor, b"")
        self.dialling.heard(descriptor, taken_by)

    def send(self, route: bytes, message: Message) -> bool:
        """Send by a connection; returns whether it is there."""
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            send(self.socket, route, engine_link.encode(message))
            return True
        return False

    def close(self) -> None:
        """End all connections."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close()


def _look_up(endpoint: str, found: "SimpleQueue[tuple[str, bool]]") -> None:
    found.put((endpoint, wants_ipv6(endpoint)))
