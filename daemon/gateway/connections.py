"""Clients as the gateway's socket knows them: who is there, what waits to be sent, what they listen to.

Rules: nothing blocks. Words of the protocol (credit, errors, endings) are never lost: they wait in the peer's outbox. The
audio of one's own stream waits in its session (sinks.OwnerSink). A listener's audio is worth having only in time: what a
slow listener has not taken is dropped, oldest first, and the next piece says so (`gap`). What was flushed is not sent
after the word that it was.
"""

import dataclasses
from collections import deque
from collections.abc import Callable

from glowd.daemon import wire
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message

MAX_OUTBOX, MAX_OUTBOX_BYTES = 4096, 4 << 20
LISTENER_BUFFER_S = 2.0
MAX_LISTENING, MAX_CLOSED_FEEDS = 256, 64
"""Streams that a client may name to listen to; and streams that are closed, but that it has not read to their end."""
PROBE_NS = 2_000_000_000
"""A client not heard of for so long is sent a word: sending is how the transport tells that a client is gone."""

TrySend = Callable[[bytes, list[bytes]], bool | None]
"""(identity, parts) -> sent; False: its queue is full; None: it is gone."""


class Feed:
    """A peer listening to one stream: its audio and the endings of its generations, in order."""

    def __init__(self) -> None:
        self.dropped_samples = 0
        self.over = False
        """Whether the stream is closed: what waits is the last of it."""
        self._waiting: deque[Message] = deque()
        self._waiting_samples, self._generation, self._seq, self._gap = 0, -1, 0, False

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def offer(self, message: Message, try_send: Callable[[Message], bool]) -> None:
        """Send the next message, or keep it: of audio at most LISTENER_BUFFER_S, and none that was flushed."""
        if self.over:  # another stream of the same name
            self.over, self._generation = False, -1
        if isinstance(message, wire.Audio):
            self._waiting_samples += message.samples
        elif not isinstance(message, wire.Played):
            self._shorten(-1)
        self._waiting.append(message)
        self.pump(try_send)
        if isinstance(message, wire.Audio):
            self._shorten(int(LISTENER_BUFFER_S * message.rate_hz))

    def pump(self, try_send: Callable[[Message], bool]) -> None:
        """Send what can be sent."""
        while self._waiting and try_send(self._numbered(self._waiting[0])):
            sent = self._waiting.popleft()
            if isinstance(sent, wire.Audio):
                self._waiting_samples -= sent.samples
                self._seq, self._gap = self._seq + 1, False

    def _numbered(self, message: Message) -> Message:
        if not isinstance(message, wire.Audio):
            return message
        if message.generation != self._generation:
            # One that begins at its beginning has lost nothing; one that was joined late has not either.
            self._generation, self._seq, self._gap = message.generation, 0, self._gap and message.first_sample > 0
        return dataclasses.replace(message, seq=self._seq, gap=self._gap)

    def _shorten(self, most_samples: int) -> None:
        """Drop audio, oldest first, until at most so much waits (-1: all of it). Endings stay."""
        if self._waiting_samples <= most_samples:
            return
        kept: deque[Message] = deque()
        for message in self._waiting:
            if isinstance(message, wire.Audio) and self._waiting_samples > most_samples:
                self._waiting_samples -= message.samples
                self.dropped_samples += message.samples
                self._gap = True
            else:
                kept.append(message)
        self._waiting = kept


class Peer:
    """One client. `gone` once the transport, or its own slowness, has lost it."""

    def __init__(self, identity: bytes, name: str, now_ns: int, try_send: TrySend) -> None:
        self.identity, self.name, self.heard_ns = identity, name, now_ns
        self.version = wire.OLDEST_VERSION
        self._probed_ns = now_ns
        self.gone = ""
        self.listening: set[str] = set()
        self.feeds: dict[str, Feed] = {}
        self._try_send = try_send
        self._outbox: deque[list[bytes]] = deque()
        self._outbox_bytes = 0

    def send(self, message: Message) -> None:
        """Send now or later, in order; not at all what the client's version of the protocol lacks."""
        if wire.since(message) > self.version:
            return
        parts = wire.encode(message)
        self._outbox.append(parts)
        self._outbox_bytes += sum(map(len, parts))
        self.pump()
        if len(self._outbox) > MAX_OUTBOX or self._outbox_bytes > MAX_OUTBOX_BYTES:
            self.gone = f"it reads too slowly: {len(self._outbox)} messages ({self._outbox_bytes} bytes) wait for it"

    def try_send(self, message: Message) -> bool:
        """Send now if nothing waits and the socket takes it."""
        return not self._outbox and not self.gone and self._put(wire.encode(message))

    def pump(self) -> None:
        """Send what waits."""
        while self._outbox and not self.gone and self._put(self._outbox[0]):
            self._outbox_bytes -= sum(map(len, self._outbox.popleft()))
        for stream, feed in list(self.feeds.items()):
            feed.pump(self.try_send)
            if feed.over and feed.empty:
                del self.feeds[stream]

    def probe(self, now_ns: int) -> None:
        """Find out whether a silent client is still there."""
        if now_ns - max(self.heard_ns, self._probed_ns) > PROBE_NS:
            self._probed_ns = now_ns
            self.try_send(wire.Pong(t_client_ns=0, t_daemon_ns=now_ns))

    def hear(self, stream: str, message: Message) -> None:
        """Something of a stream, if this peer listens to it."""
        if stream in self.listening or "*" in self.listening:
            self.feeds.setdefault(stream, Feed()).offer(message, self.try_send)

    def listen(self, stream: str) -> None:
        """Let this peer hear a stream, or "*": all of them. Raises WireError if it has named too many."""
        if stream not in {"*", *self.listening} and len(self.listening) >= MAX_LISTENING:
            text = f'a client can listen to {MAX_LISTENING} streams; "*" is all of them'
            raise WireError(Code.AT_CAPACITY, text, stream)
        self.listening.add(stream)

    def unlisten(self, stream: str) -> None:
        """Undo a `listen`; what waits of streams that nobody asks for any more is forgotten."""
        self.listening.discard(stream)
        if "*" not in self.listening:
            self.feeds = {name: feed for name, feed in self.feeds.items() if name in self.listening}

    def stream_closed(self, stream: str) -> None:
        """Nothing more comes of a stream; what waits is still sent."""
        if feed := self.feeds.get(stream):
            feed.over = True
        if (closed := sum(feed.over for feed in self.feeds.values())) > MAX_CLOSED_FEEDS:
            self.gone = f"it reads too slowly: {closed} streams wait for it that are closed"

    def _put(self, parts: list[bytes]) -> bool:
        sent = self._try_send(self.identity, parts)
        if sent is None:
            self.gone = "its connection is gone"
        return bool(sent)
