"""Those who have subscribed to the telemetry: how many there are, and who subscribes without end.

ZeroMQ keeps every subscription, and gives it to us. A watcher needs one; a connection that has sent MOST of them is shut down.

Rules: one thread. At most BURST subscriptions are read in one pass of the loop: a peer may send any number.
"""

import contextlib

import zmq

from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.runtime.sockets import Socket, sender_of

MOST, BURST = 64, 64
SUBSCRIBED, LEFT = b"\x01", b"\x00"


class Watchers:
    """Of the telemetry's socket. Owner: the gateway's only thread."""

    def __init__(self, socket: Socket, visitors: Visitors) -> None:
        self._socket, self._visitors, self._count = socket, visitors, 0

    def any(self) -> bool:
        """Read what subscribers have sent, at most BURST messages; whether somebody watches."""
        with contextlib.suppress(zmq.Again):
            for _ in range(BURST):
                self._take(self._socket.recv(zmq.NOBLOCK, copy=False))
        return self._count > 0

    def _take(self, frame: zmq.Frame) -> None:
        """A subscription, its end, or whatever a peer may send; ZeroMQ itself tells the end of one that has gone."""
        kind, descriptor = frame.bytes[:1], sender_of(frame).descriptor
        self._count += {SUBSCRIBED: 1, LEFT: -1}.get(kind, 0)
        if (connection := self._visitors.strangers.get(descriptor)) is None:
            return
        connection.messages += 1
        if connection.messages > MOST:
            self._visitors.expel(descriptor, f"more than {MOST} subscriptions")
