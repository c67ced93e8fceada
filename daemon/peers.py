"""Clients as the gateway's socket knows them: who is there, what waits to be sent, what they listen to.

Rules: nothing blocks. Words of the protocol (credit, errors, endings) are never lost: they wait in the peer's outbox. The
audio of one's own stream waits in its session (sinks.OwnerSink). A listener's audio is worth having only in time: what a
slow listener has not taken is dropped, oldest first, and the next piece says so (`gap`).
"""

import dataclasses
from collections import deque
from collections.abc import Callable

from daemon import wire
from daemon.message import Message

MAX_OUTBOX = 4096
LISTENER_BUFFER_S = 2.0

TrySend = Callable[[bytes, list[bytes]], bool | None]
"""(identity, parts) -> sent; False: its queue is full; None: it is gone."""


class Feed:
    """A peer listening to one stream."""

    def __init__(self) -> None:
        self.dropped_samples = 0
        self._seq, self._gap = 0, False
        self._waiting: deque[wire.Audio] = deque()

    def offer(self, audio: wire.Audio, try_send: Callable[[Message], bool]) -> None:
        """Send the piece, or keep it for later within LISTENER_BUFFER_S."""
        if audio.first_sample == 0:
            self._seq, self._gap = 0, False
        self._waiting.append(audio)
        self.pump(try_send)
        while sum(piece.samples for piece in self._waiting) > LISTENER_BUFFER_S * audio.rate_hz:
            self.dropped_samples += self._waiting.popleft().samples
            self._gap = True

    def pump(self, try_send: Callable[[Message], bool]) -> None:
        """Send what can be sent."""
        while self._waiting and try_send(dataclasses.replace(self._waiting[0], seq=self._seq, gap=self._gap)):
            self._waiting.popleft()
            self._seq, self._gap = self._seq + 1, False


class Peer:
    """One client. `gone` once the transport, or its own slowness, has lost it."""

    def __init__(self, identity: bytes, name: str, now_ns: int, try_send: TrySend) -> None:
        self.identity, self.name, self.heard_ns = identity, name, now_ns
        self.gone = ""
        self.listening: set[str] = set()
        self.feeds: dict[str, Feed] = {}
        self._try_send = try_send
        self._outbox: deque[list[bytes]] = deque()

    def send(self, message: Message) -> None:
        """Send now or later, in order."""
        self._outbox.append(wire.encode(message))
        self.pump()
        if len(self._outbox) > MAX_OUTBOX:
            self.gone = f"{MAX_OUTBOX} messages wait for it"

    def try_send(self, message: Message) -> bool:
        """Send now if nothing waits and the socket takes it."""
        return not self._outbox and not self.gone and self._put(wire.encode(message))

    def pump(self) -> None:
        """Send what waits."""
        while self._outbox and not self.gone and self._put(self._outbox[0]):
            self._outbox.popleft()
        for feed in self.feeds.values():
            feed.pump(self.try_send)

    def hear(self, stream: str, message: Message) -> None:
        """Something of a stream this peer may listen to."""
        if stream not in self.listening and "*" not in self.listening:
            return
        if isinstance(message, wire.Audio):
            self.feeds.setdefault(stream, Feed()).offer(message, self.try_send)
        else:
            self.send(message)

    def _put(self, parts: list[bytes]) -> bool:
        sent = self._try_send(self.identity, parts)
        if sent is None:
            self.gone = "its connection is gone"
        return bool(sent)
