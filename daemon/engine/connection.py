"""The connection of an engine to the gateway of another machine: what is the same whoever has dialled, and that of an engine
that dials.

Rules: moves messages, and answers probes; joined.py says what the others mean. listening.py has the connection of an engine
that is dialled. Who dials is no matter of keys: the gateway has the server's key pair in either case, and the engine a key that
was made for it (CURVE, RFC 26).
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Self

import zmq
from zmq.utils.monitor import parse_monitor_message

from glowd.daemon import engine_link
from glowd.daemon.runtime.role import CannotStart
from glowd.daemon.runtime.sockets import Context, Socket, joining_socket
from glowd.daemon.wire import WireError
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import wants_ipv6

REDIAL_NS = 1_000_000_000
"""ZeroMQ itself does not dial again where somebody breaks its protocol."""

log = logging.getLogger("glowd.engine")


class TurnedAwayError(CannotStart):
    """The gateway does not want this engine. The text is the gateway's reason."""


class Connection:
    """One connection to a gateway. `is_open` once it is made and both keys are right; `is_lost` when it has ended."""

    def __init__(self, socket: Socket, events: int) -> None:
        """`events`: of the socket's monitor, that concern this connection."""
        self.is_open = self.is_lost = self._has_warned = False
        self._looked_ns, self._unread_ns = time.monotonic_ns(), 0
        self._socket, self._monitor = socket, socket.get_monitor_socket(events)
        self._poller = zmq.Poller()
        for one in (self._socket, self._monitor):
            self._poller.register(one, zmq.POLLIN)

    def __enter__(self) -> Self:
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
            event = parse_monitor_message(self._monitor.recv_multipart())
            self._take_event(event["event"], event["value"])

    def received(self) -> list[Message]:
        """The messages that have arrived. Probes are answered; one that cannot be read, of a later version, is left out."""
        found = []
        with contextlib.suppress(zmq.Again):
            while True:
                parts = self._read()
                read_ns = time.monotonic_ns()
                try:
                    message = engine_link.decode(parts)
                except WireError as error:
                    self._ignore(error)
                    continue
                if isinstance(message, engine_link.Probe):
                    self._answer(message, read_ns)
                else:
                    found.append(message)
        self._looked_ns = time.monotonic_ns()
        return found

    def _ignore(self, error: WireError) -> None:
        """Of many messages that cannot be read, the first is told of: at a socket for clients, each Join is answered by one."""
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "ignored a message of the gateway, and is silent about others: %s; if this engine does not join, compare "
                "its port with that of server.engines", error,
            )  # fmt: skip

    def _answer(self, probe: engine_link.Probe, read_ns: int) -> None:
        self.send(engine_link.Echo(probe.t_sent_ns, read_ns, time.monotonic_ns(), self._unread_ns))

    @property
    def gateway(self) -> str:
        """Where the gateway is, for people."""
        raise NotImplementedError

    def send(self, message: Message) -> bool:
        """Send; nothing, once the connection is lost. Returns whether it was sent."""
        with contextlib.suppress(zmq.Again):
            self._put(engine_link.encode(message))
            return True
        return False

    # ---------------------------------------------------- of one kind or the other

    def _take_event(self, event: int, value: int) -> None:
        raise NotImplementedError

    def _read(self) -> Sequence[bytes]:
        """The next message of the gateway. Raises zmq.Again if there is none."""
        raise NotImplementedError

    def _put(self, parts: list[bytes]) -> None:
        """Send to the gateway. Raises zmq.Again if nothing can be sent."""
        raise NotImplementedError


class DiallingConnection(Connection):
    """That of an engine which dials the gateway."""

    EVENTS = (
        zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECT_RETRIED
    )  # fmt: skip

    def __init__(self, context: Context, address: Address) -> None:
        self._address, self._is_resolved, self._told, self._redial_ns = address, False, "", 0
        super().__init__(joining_socket(context, address), self.EVENTS)
        self._socket.setsockopt(zmq.IPV6, wants_ipv6(address.url))
        self._socket.connect(address.url)

    def _take_event(self, event: int, value: int) -> None:
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_open, self._told = True, ""
            case zmq.EVENT_DISCONNECTED:
                self.is_lost = self.is_open
                if not self.is_open:
                    self._wait_for(
                        "what listens there is no gateway, or that of another daemon than this address is for"
                    )
                    self._redial_ns = time.monotonic_ns() + REDIAL_NS
            case zmq.EVENT_CONNECT_DELAYED:  # it has an address, and no connection yet
                self._is_resolved = True
            case zmq.EVENT_CONNECT_RETRIED:
                if not self._redial_ns:
                    self._wait_for("nobody listens there" if self._is_resolved else "the name has no address")
                self._is_resolved, self._redial_ns = False, 0
            case _:
                raise TurnedAwayError(
                    f"{self._address.shown} does not let this key in: it was revoked, is unknown, or has not the role "
                    "engine; ask for a new address (glowctl key new NAME --role engine)"
                )

    def wait(self, timeout_ms: int) -> None:
        """As of any connection; one that ZeroMQ has given up is made anew."""
        super().wait(timeout_ms)
        if self._redial_ns and time.monotonic_ns() > self._redial_ns:
            self._redial_ns = 0
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disconnect(self._address.url)
            self._socket.connect(self._address.url)

    @property
    def gateway(self) -> str:
        """By the address that was dialled."""
        return f"the gateway at {self._address.shown}"

    def _wait_for(self, why: str) -> None:
        """Say what is waited for: once, as long as it is the same."""
        if why != self._told:
            self._told = why
            log.warning("waiting for a gateway at %s: %s", self._address.shown, why)

    def _read(self) -> Sequence[bytes]:
        return self._socket.recv_multipart(zmq.NOBLOCK)

    def _put(self, parts: list[bytes]) -> None:
        self._socket.send_multipart(parts, zmq.NOBLOCK)
