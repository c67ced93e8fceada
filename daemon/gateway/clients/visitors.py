"""The connections to a socket, from the moment they are accepted: whoever is not let in soon, or sends what never becomes a
message, is shut out.

ZeroMQ ends a handshake that takes too long, and nothing else. It keeps whoever connects and says no more, as many as there are
file descriptors; and of a message it limits the size of each part, but not their number, and gives none away before the last has
come. Its monitor tells which descriptor each connection has. One that is shut down is, for ZeroMQ, a peer that left.

Rules: one thread; the time is passed in. A descriptor is used again as soon as it is closed, so the monitor is read before one is
shut down, and it must still have the same peer.
"""

import contextlib
import itertools
import logging
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import zmq

from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.peers import machine_of
from glowd.daemon.runtime.system import give_back_memory

HELLO_NS = 10_000_000_000
"""From the connection to the first hello."""
PARTING_NS = 1_000_000_000
"""From the end of a client until its connection is shut down: it may read why, and say hello again."""
MAX_STRANGERS = 128
"""Connections that nobody has said hello on."""
STRANGER_BYTES = 1 << 16
"""What one of these may have sent that was no message yet."""
FRAME_BYTES_PER_MS = 64
"""More than frames of any voice take."""
LOOK_NS, BYTES_PER_LOOK = 100_000_000, 8
"""Between two looks at what has come; and what of it may have been ZeroMQ's own, such as heartbeats."""
GIVE_BACK_NS = 1_000_000_000
"""Between two times that freed memory is given back: it takes about a millisecond."""
EVENT = struct.Struct("=HI")
TCP_INFO_BYTES, RECEIVED_AT = 136, 128
"""Of Linux's struct tcp_info: as far as tcpi_bytes_received, which is the last 8 of these bytes."""
_numbers = itertools.count()

log = logging.getLogger("glowd.gateway")


@dataclass(slots=True)
class Connection:
    """A connection. `name`: of its socket, as the system names it; `address`: of that the machine (peers.py), "" for this one.

    `until_ns`: when it is shut down if nobody has said hello, and `why`; `read_bytes`: what has come on it and was read.
    """

    until_ns: int | None
    name: Any
    address: str
    read_bytes: int = 0
    messages: int = 0
    public_key: bytes = b""
    why: str = "no hello"
    """Of a watcher (watchers.py): how many it has sent, and with which key it was let in."""


class Visitors:
    """The connections to one socket. `monitor`, once that is watched, has something to read when one comes or goes."""

    monitor: "zmq.Socket[bytes] | None" = None

    def __init__(self, most: int = MAX_STRANGERS, hello_ns: int | None = HELLO_NS) -> None:
        """`most`: strangers at once; `hello_ns` None: they may stay."""
        self._most, self._hello_ns, self._now_ns, self._looked_ns = most, hello_ns, 0, 0
        self.client_bytes = STRANGER_BYTES
        """What a client may have sent that was not read yet."""
        self.strangers: dict[int, Connection] = {}
        self.clients: dict[int, tuple[bytes, Connection]] = {}
        self._gives_back, self._gave_back_ns = False, 0
        """Whether somebody has left, whose memory the C library keeps, and when it was last told to give that back."""

    def use(self, config: Config) -> None:
        """Use other settings: a client may have sent what its credit allows, and two of the longest messages."""
        server = config.server
        self.client_bytes = 2 * server.max_message_bytes + server.max_streams * server.credit_ms * FRAME_BYTES_PER_MS

    def watch(self, socket: "zmq.Socket[bytes]") -> None:
        """Watch this socket, which must not be bound yet."""
        place = f"inproc://visitors-{next(_numbers)}"
        socket.monitor(place, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.monitor = socket.context.socket(zmq.PAIR)
        self.monitor.setsockopt(zmq.RCVHWM, 0)  # ZeroMQ's own thread would wait while it is full
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.monitor.connect(place)

    def __len__(self) -> int:
        return len(self.strangers) + len(self.clients)

    # ------------------------------------------------------------ what is told

    def take(self, now_ns: int) -> None:
        """Read who came and who went; shut out those that are too many."""
        self._now_ns = now_ns
        with contextlib.suppress(zmq.Again):
            while self.monitor:
                self.note(*EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0]))
        while len(self.strangers) > self._most:
            self._shut_out(self._least_welcome(), "too many connections without a client")

    def note(self, event: int, descriptor: int) -> None:
        """A connection has come or gone, as ZeroMQ's monitor tells."""
        self.strangers.pop(descriptor, None)
        self.clients.pop(descriptor, None)
        self._gives_back = self._gives_back or event == zmq.EVENT_DISCONNECTED
        if event == zmq.EVENT_ACCEPTED:
            self.strangers[descriptor] = self._connection(descriptor)

    def read(self, descriptor: int, count: int) -> None:
        """A message of so many bytes was read from this connection."""
        if connection := self.strangers.get(descriptor) or self.clients.get(descriptor, (b"", None))[1]:
            connection.read_bytes += count

    def greeted(self, descriptor: int, identity: bytes) -> None:
        """A client has said hello on this connection, which may have come after the monitor was last read."""
        if connection := self.stranger(descriptor):
            del self.strangers[descriptor]
            self.clients[descriptor] = identity, connection

    def stranger(self, descriptor: int) -> Connection | None:
        """The connection with this descriptor, which may have come after the monitor was last read; None if it is a client's."""
        if descriptor not in self.strangers:
            self.take(self._now_ns)
        return self.strangers.get(descriptor)

    def part(self, descriptor: int, identity: bytes) -> None:
        """The client of this connection is one no more. Its connection may be gone, and the descriptor another's."""
        self._gives_back = True
        if self.clients.get(descriptor, (b"", None))[0] == identity:
            _, connection = self.clients.pop(descriptor)
            connection.until_ns = self._now_ns + PARTING_NS
            self.strangers[descriptor] = connection

    def excuse(self, absent_ns: int) -> None:
        """The gateway did not run for a while: what strangers have said meanwhile was not read."""
        for connection in self.strangers.values():
            if connection.until_ns is not None:
                connection.until_ns += absent_ns

    # ---------------------------------------------------------- who is shut out

    def tick(self, now_ns: int) -> None:
        """Shut out those that have had their time, or that send what is no message."""
        self.take(now_ns)
        for descriptor, connection in list(self.strangers.items()):
            if connection.until_ns is not None and now_ns > connection.until_ns:
                self._shut_out(descriptor, connection.why)
        if now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            self._look()

    def _look(self) -> None:
        if self._gives_back and self._now_ns - self._gave_back_ns >= GIVE_BACK_NS:
            self._gives_back, self._gave_back_ns = False, self._now_ns
            give_back_memory()
        for descriptor, connection, most in list(self._all()):
            if connection.address and (received := _with_socket(descriptor, _received_bytes)) is not None:
                connection.read_bytes = min(connection.read_bytes + BYTES_PER_LOOK, received)
                if received - connection.read_bytes > most:
                    self._shut_out(descriptor, f"{received - connection.read_bytes} bytes that are no message")

    def _all(self) -> Iterator[tuple[int, Connection, int]]:
        for descriptor, connection in self.strangers.items():
            yield descriptor, connection, STRANGER_BYTES
        for descriptor, (_, connection) in self.clients.items():
            yield descriptor, connection, self.client_bytes

    def _connection(self, descriptor: int) -> Connection:
        name = _with_socket(descriptor, lambda found: found.getpeername())
        address = machine_of(str(name[0])) if isinstance(name, tuple) else ""
        return Connection(None if self._hello_ns is None else self._now_ns + self._hello_ns, name, address)

    def _least_welcome(self) -> int:
        """Of the address with the most strangers the one that has been here for the longest time."""
        counts = Counter(connection.address for connection in self.strangers.values())
        address, _ = counts.most_common(1)[0]
        return next(descriptor for descriptor, connection in self.strangers.items() if connection.address == address)

    def expel(self, descriptor: int, why: str) -> None:
        """Shut down a connection, whosever it is."""
        if descriptor in self.strangers or descriptor in self.clients:
            self._shut_out(descriptor, why)

    def dismiss(self, descriptor: int, why: str) -> None:
        """Shut down the connection of a stranger at the next tick: what it was told goes out before that."""
        if connection := self.strangers.get(descriptor):
            connection.until_ns, connection.why = self._now_ns, why

    def _shut_out(self, descriptor: int, why: str) -> None:
        connection = self.strangers.pop(descriptor, None) or self.clients.pop(descriptor)[1]

        def shut(found: socket.socket) -> None:
            if found.getpeername() == connection.name:
                found.shutdown(socket.SHUT_RDWR)

        log.debug("a connection of %s is shut down: %s", connection.address or "this machine", why)
        _with_socket(descriptor, shut)

    def close(self) -> None:
        """Stop watching."""
        if self.monitor:
            self.monitor.close()


def _received_bytes(found: socket.socket) -> int | None:
    """What has come on a TCP connection; None where the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    told = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return int.from_bytes(told[RECEIVED_AT:], "little") if len(told) == TCP_INFO_BYTES else None


def _with_socket(descriptor: int, use: Callable[[socket.socket], Any]) -> Any:
    """What `use` makes of a descriptor of ZeroMQ's, which keeps it; None if that is gone."""
    with contextlib.suppress(OSError):
        found = socket.socket(fileno=descriptor)
        try:
            return use(found)
        finally:
            found.detach()
    return None
