"""The streams that are open: the session of each, the client that owns it, and the keys of its generations.

Rules: no socket, and no decision: who may open a stream is decided in admission.py, what a stream does in session.py.
"""

import time
from collections.abc import Mapping

from glowd.daemon.gateway.connections import Peer
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.session import Session
from glowd.daemon.wire.fields import Message


class Streams:
    """All open streams. `peers` are the clients that may listen. Owner: the gateway's only thread."""

    def __init__(self, pools: Mapping[str, Pool], peers: Mapping[bytes, Peer]) -> None:
        self.sessions: dict[str, Session] = {}
        self.owners: dict[str, Peer] = {}
        self.by_key: dict[int, Session] = {}
        self._pools, self._peers = pools, peers
        # Keys must differ from those a former gateway gave to an engine that is still running.
        self._next_key = time.time_ns() // 1000

    def add(self, session: Session, owner: Peer) -> None:
        """A stream is open."""
        self.sessions[session.name], self.owners[session.name] = session, owner

    def of(self, owner: Peer) -> list[Session]:
        """The streams of a client."""
        return [self.sessions[name] for name, peer in self.owners.items() if peer is owner]

    def own(self, peer: Peer, name: str) -> Session | None:
        """The stream of that name, if it is this client's."""
        return self.sessions.get(name) if self.owners.get(name) is peer else None

    def new_key(self, session: Session) -> int:
        """A number for the next generation of a stream; the last one is void."""
        self._forget_keys(session)
        self._next_key += 1
        self.by_key[self._next_key] = session
        return self._next_key

    def to_listeners(self, stream: str, message: Message) -> None:
        """Offer a message to all clients but the owner; those that listen to the stream get it."""
        for peer in self._peers.values():
            if self.owners.get(stream) is not peer:
                peer.hear(stream, message)

    def drop(self, session: Session) -> None:
        """Close a stream and forget it."""
        session.close()
        self._forget_keys(session)
        self._pools[session.voice].forget(session.name)
        self.sessions.pop(session.name, None)
        self.owners.pop(session.name, None)
        for peer in self._peers.values():
            peer.stream_closed(session.name)

    def _forget_keys(self, session: Session) -> None:
        for key in [key for key, owner in self.by_key.items() if owner is session]:
            del self.by_key[key]
