"""Those who have subscribed to the telemetry: how many there are, who subscribes without end, and whose key counts no more.

ZeroMQ keeps every subscription, and gives it to us. A watcher needs one; a connection that has sent MOST of them is shut down.

Rules: one thread; the time is passed in. At most BURST subscriptions are read in one pass of the loop, however many are sent.
"""

import contextlib
import logging
from collections.abc import Mapping

import zmq

from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.runtime.keys import ClientKey, Keys
from glowd.daemon.runtime.sockets import Socket, sender_of

MOST, BURST = 64, 64
KEYS_EVERY_NS = 1_000_000_000
SUBSCRIBED, LEFT = b"\x01", b"\x00"

log = logging.getLogger("glowd.gateway")


class Watchers:
    """Of the telemetry's socket. Owner: the gateway's only thread."""

    def __init__(self, socket: Socket, visitors: Visitors, keys: Keys = dict) -> None:
        """`keys`: those that count. Who has none is of this machine, or keys are not asked for."""
        self._socket, self._visitors, self._keys = socket, visitors, keys
        self._count = self._keys_read_ns = 0

    def any(self) -> bool:
        """Read what subscribers have sent, at most BURST messages; whether somebody watches."""
        with contextlib.suppress(zmq.Again):
            for _ in range(BURST):
                self._take(self._socket.recv(zmq.NOBLOCK, copy=False))
        return self._count > 0

    def tick(self, now_ns: int) -> None:
        """End those whose key was revoked, or has lost its role."""
        if now_ns - self._keys_read_ns < KEYS_EVERY_NS:
            return
        self._keys_read_ns, keys = now_ns, self._keys()
        for descriptor, connection in list(self._visitors.strangers.items()):
            self._require_right(descriptor, connection.public_key, keys)

    def _require_right(self, descriptor: int, public_key: bytes, keys: Mapping[bytes, ClientKey]) -> None:
        """End a connection whose key does not count for this."""
        key = keys.get(public_key)
        if public_key and not (key and key.rights.watches):
            why = f"the key {key.name} has not the role metrics any more" if key else "its key was revoked"
            log.info("a watcher of the telemetry is ended: %s", why)
            self._visitors.expel(descriptor, why)

    def _take(self, frame: zmq.Frame) -> None:
        """A subscription, its end, or whatever a peer may send; ZeroMQ itself tells the end of one that has gone."""
        kind, sender = frame.bytes[:1], sender_of(frame)
        self._count += {SUBSCRIBED: 1, LEFT: -1}.get(kind, 0)
        if (connection := self._visitors.stranger(sender.descriptor)) is None:
            return
        connection.messages, connection.public_key = connection.messages + 1, sender.key
        if connection.messages > MOST:
            self._visitors.expel(sender.descriptor, f"more than {MOST} subscriptions")
        elif sender.key:  # it may have waited since its handshake
            self._require_right(sender.descriptor, sender.key, self._keys())
