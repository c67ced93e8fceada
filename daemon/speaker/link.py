"""The speaker's end of the socket to the gateway: messages in, messages out, and messages that become true later.

Rules: one thread. A gateway that is away loses what is sent meanwhile: what was played then is of no use to the next one.
"""

import logging
import time
from collections.abc import Iterator
from heapq import heappop, heappush

import zmq

from glowd.daemon import ipc
from glowd.daemon.wire.codec import WireError
from glowd.daemon.wire.fields import Message

log = logging.getLogger("glowd")


class GatewayLink:
    """Sends and receives ipc messages on a socket that the gateway's is connected to."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self._later: list[tuple[int, int, Message]] = []  # a heap, by the time at which a message becomes true
        self._count = 0  # keeps messages of one time in order

    def receive(self, limit: int) -> Iterator[Message]:
        """The messages that have arrived, at most `limit`. Those that cannot be read are logged and left out."""
        for _ in range(limit):
            try:
                parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                yield ipc.decode(parts)
            except WireError as error:  # a bug of ours on either side; the other streams continue
                log.error("rejected a message of the gateway: %s", error)

    def send(self, message: Message) -> None:
        """Send now, if there is a gateway."""
        try:
            self.socket.send_multipart(ipc.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            log.debug("no gateway to send %s to", message.TYPE)

    def send_at(self, t_ns: int, message: Message) -> None:
        """Keep `message` until `t_ns` (monotonic clock), then let `send_due` send it."""
        self._count += 1
        heappush(self._later, (t_ns, self._count, message))

    def send_due(self) -> None:
        """Send the messages whose time has come."""
        while self._later and self._later[0][0] <= time.monotonic_ns():
            self.send(heappop(self._later)[2])
