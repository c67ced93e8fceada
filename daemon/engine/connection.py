"""The connection of an engine to the gateway of another machine, which it has dialled, or which has dialled it.

Rules: moves messages, and answers probes; joined.py says what the others mean. Who dials is no matter of keys: the gateway has
the server's key pair in either case, and the engine a key that was made for it (CURVE, RFC 26). So whoever dials an engine
that listens must own the server key in the engine's address, and strangers get no further than the handshake. What ZeroMQ tells
of their attempts is ignored: they could else end the connection of the gateway.
"""

import contextlib
import logging
import time

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.daemon import engine_link
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.runtime.sockets import joining_socket
from glowd.daemon.wire import WireError
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import wants_ipv6

EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
SILENT_S = 4.0
"""A gateway that has dialled, and is silent for this long, is lost: it sends a probe every second."""

log = logging.getLogger("glowd.engine")


class TurnedAwayError(CannotStart):
    """The gateway does not want this engine. The text is the gateway's reason."""


class Connection:
    """One connection to a gateway. `is_open` once it is made and both keys are right; `is_lost` when it has ended."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: Address, listen: str = "") -> None:
        """`listen`: where the gateway dials, tcp://HOST:PORT; "": it is dialled. Raises CannotStart for a place that is taken."""
        self._address, self.is_open, self.is_lost, self._listens = address, False, False, bool(listen)
        self._heard_ns: int | None = None  # of a gateway that has dialled
        self._looked_ns, self._unread_ns = time.monotonic_ns(), 0
        self._socket = joining_socket(context, address)
        self._monitor = self._socket.get_monitor_socket(EVENTS)
        self._poller = zmq.Poller()
        for one in (self._socket, self._monitor):
            self._poller.register(one, zmq.POLLIN)
        try:
            self._socket.setsockopt(zmq.IPV6, wants_ipv6(listen or address.url))
            self._socket.bind(listen) if listen else self._socket.connect(address.url)
        except zmq.ZMQError as error:
            self.__exit__()
            raise CannotStart(f"--listen: cannot listen on {listen}: {error.strerror}", settings=True) from error

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()

    def wait(self, timeout_ms: int) -> None:
        """Wait for a message, or for news of the connection."""
        waits = self._socket in dict(self._poller.poll(0))
        self._unread_ns = time.monotonic_ns() - self._looked_ns if waits else 0
        ready = dict(self._poller.poll(timeout_ms))
        if self._monitor in ready:
            self._take_event(parse_monitor_message(self._monitor.recv_multipart())["event"])

    def _take_event(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.is_lost = self.is_open  # the gateway was restarted, and has dialled again
            self.is_open = True
        elif self._listens:
            return
        elif event == zmq.EVENT_DISCONNECTED:
            self.is_lost = self.is_open
        else:
            raise TurnedAwayError(
                f"{self._address.shown} does not let this key in: it was revoked, is unknown, or has not the role engine; "
                "ask for a new address (glowctl key new NAME --role engine)"
            )

    def received(self) -> list[Message]:
        """The messages that have arrived. Probes are answered; one that cannot be read, of a later version, is left out."""
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                read_ns = time.monotonic_ns()
                try:
                    message = engine_link.decode(parts)
                except WireError as error:
                    log.warning("ignored a message of the gateway: %s", error)
                    continue
                if isinstance(message, engine_link.Probe):
                    self._answer(message, read_ns)
                else:
                    found.append(message)
                self._heard_ns = read_ns
        self._looked_ns = time.monotonic_ns()
        if self._listens and self._heard_ns and self._looked_ns - self._heard_ns > 1e9 * SILENT_S:
            self.is_lost = True
        return found

    def _answer(self, probe: engine_link.Probe, read_ns: int) -> None:
        self.send(engine_link.Echo(probe.t_sent_ns, read_ns, time.monotonic_ns(), self._unread_ns))

    def send(self, message: Message) -> None:
        """Send; nothing, once the connection is lost."""
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart(engine_link.encode(message), zmq.NOBLOCK)
