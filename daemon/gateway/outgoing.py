"""What goes out by one of the gateway's sockets: gathered while messages are handled, and sent together.

Rules: nothing blocks; one thread. The thread of ZeroMQ that writes to the connections sleeps while there is nothing to write,
and to wake it takes longer than all else about a message: 9 us for each of some that are sent one by one, 2 us for each of a
burst. So the loop flushes after each burst of messages that it has read, and no message waits for longer than that takes.
"""

import logging
from collections.abc import Callable

import zmq

from glowd.daemon.runtime.sockets import Socket, send

log = logging.getLogger("glowd.gateway")


class Outgoing:
    """Messages to the peers of a ROUTER, to each in order. Owner: the gateway's loop."""

    def __init__(self, socket: Socket, gone: Callable[[bytes], None], most: int | None = None) -> None:
        """`gone` is called with the identity of a peer that is not there, or not any more; what was for it is lost.

        `most`: messages that are taken for one peer until they are sent.
        """
        self._socket, self._gone, self._most = socket, gone, most
        self.waiting: dict[bytes, list[list[bytes]]] = {}
        """What the next flush sends."""
        self._kept: dict[bytes, list[list[bytes]]] = {}  # of peers whose queues were full
        self._refused: set[bytes] = set()  # of those, for whom there is more

    def put(self, identity: bytes, parts: list[bytes]) -> bool:
        """Have a message sent. Returns False, and takes nothing, while the queue of the peer is full."""
        if identity in self._kept:
            self._refused.add(identity)
            return False
        queue = self.waiting.setdefault(identity, [])
        if self._most is not None and len(queue) >= self._most:
            return False
        queue.append(parts)
        return True

    def flush(self) -> None:
        """Send what waits. What a full queue does not take is kept; a peer for whom there is more is tried again."""
        for identity in self._refused:
            self.waiting[identity] = self._kept.pop(identity)
        self._refused.clear()
        waiting, self.waiting = self.waiting, {}
        for identity, queue in waiting.items():
            for number, parts in enumerate(queue):
                if not self._try(identity, parts):
                    self._kept[identity] = queue[number:]
                    break

    def retry(self) -> None:
        """Try every peer again whose queue was full."""
        self._refused.update(self._kept)
        self.flush()

    def _try(self, identity: bytes, parts: list[bytes]) -> bool:
        """Returns whether nothing of it is left to be sent."""
        try:
            send(self._socket, identity, parts)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                log.error("cannot send to %s: %s", identity.decode(errors="replace"), error)
            self._gone(identity)
        return True
