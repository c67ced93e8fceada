"""The clients of the gateway: who is connected, what waits to be sent to each, which streams each listens to.

Rules: nothing blocks. Messages other than audio (credit, errors, endings) are never lost: they wait in the outbox of the
client. Audio of a client's own stream waits in the session (SocketSink in streams/sinks.py). Audio for a listener is worth
sending only in time: if the listener is slow, the oldest is dropped, and the next chunk has `gap`. No audio of an utterance
follows its `flushed`.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable

from glowd.daemon import wire
from glowd.daemon.gateway.clients.peers import Peer, peer_of
from glowd.daemon.gateway.streams import notices
from glowd.daemon.gateway.streams.audio_format import AudioConverter, AudioFormat
from glowd.daemon.runtime.permissions import EVERYTHING
from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire import Code, LocalError, WireError
from glowd.daemon.wire.fields import Message

MAX_OUTBOX, MAX_OUTBOX_BYTES = 4096, 4 << 20
LISTENER_BUFFER_S = 2.0
MAX_LISTENING, MAX_CLOSED_QUEUES = 256, 16
"""Streams that a client may listen to by name; and closed streams of which it has not read everything."""
PROBE_NS = 2_000_000_000
"""After this silence a client is sent a message: the transport reports a lost client only when something is sent."""

log = logging.getLogger("glowd.gateway")

TrySend = Callable[[bytes, list[bytes]], bool]
"""Called with (identity, parts). Returns False, and takes nothing, while the queue of the client is full."""


class ListenerQueue:
    """What waits for a listener of one stream: audio and endings, in order."""

    def __init__(self, wanted: AudioFormat) -> None:
        self.dropped_samples = 0
        self.converter = AudioConverter(wanted)
        self.is_closed = False
        """Whether the stream is closed: nothing more is offered."""
        self.is_warned = False
        """Whether the client was told that it has lost audio."""
        self._waiting: deque[Message] = deque()
        self._waiting_samples, self._generation, self._seq, self._gap = 0, -1, 0, False

    @property
    def generation(self) -> int:
        """The utterance of the newest audio that was sent."""
        return max(0, self._generation)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def offer(self, message: Message, try_send: Callable[[Message], bool]) -> bool:
        """Send the next message, or keep it. At most LISTENER_BUFFER_S of audio are kept, and none that was flushed.

        Returns whether audio is lost because too much of it waits.
        """
        if self.is_closed:  # a new stream has the name of a closed one
            self.is_closed, self._generation = False, -1
            self.converter = AudioConverter(self.converter.wanted)
        if isinstance(message, wire.Audio):
            message = self.converter.convert(message)
            if not message.samples and not message.last:
                return False
            self._waiting_samples += message.samples
        elif not isinstance(message, wire.Played):
            self._shorten(-1)
        self._waiting.append(message)
        self.pump(try_send)
        before = self.dropped_samples
        if isinstance(message, wire.Audio):
            self._shorten(int(LISTENER_BUFFER_S * message.rate_hz))
        return self.dropped_samples > before

    def pump(self, try_send: Callable[[Message], bool]) -> None:
        """Send what can be sent."""
        while self._waiting:
            message = self._numbered(self._waiting[0])
            try:
                if not try_send(message):
                    return
            except LocalError:  # the stream's fault, which it is told: not that of who listens
                log.exception("a message is kept from a listener")
            self._waiting.popleft()
            if isinstance(message, wire.Audio):
                self._waiting_samples -= message.samples
                self._seq, self._gap = self._seq + 1, False

    def _numbered(self, message: Message) -> Message:
        if not isinstance(message, wire.Audio):
            return message
        if message.generation != self._generation:
            # An utterance that starts at sample 0 has lost nothing. Neither has one that the listener joined late.
            self._generation, self._seq, self._gap = message.generation, 0, self._gap and message.first_sample > 0
        return dataclasses.replace(message, seq=self._seq, gap=self._gap)

    def _shorten(self, max_samples: int) -> None:
        """Drop audio, oldest first, until at most `max_samples` wait (-1: drop all). Endings stay."""
        if self._waiting_samples <= max_samples:
            return
        kept: deque[Message] = deque()
        for message in self._waiting:
            if isinstance(message, wire.Audio) and self._waiting_samples > max_samples:
                self._waiting_samples -= message.samples
                self.dropped_samples += message.samples
                self._gap = True
            else:
                kept.append(message)
        self._waiting = kept


class ClientConnection:
    """One client. `lost` says why it must be disconnected, "" if it need not be."""

    def __init__(
        self, identity: bytes, name: str, now_ns: int, try_send: TrySend, peer: Peer | None = None,
        descriptor: int = -1,
    ) -> None:  # fmt: skip
        """`descriptor`: of its connection, see visitors.py."""
        self.peer = peer or peer_of(Sender(), identity)
        self.identity, self.name, self.last_seen_ns, self.descriptor = identity, name, now_ns, descriptor
        self._probed_ns = now_ns
        self.version = wire.OLDEST_VERSION
        self.idle_timeout_s = 0.0
        """What it was told in its last welcome."""
        self.lost = ""
        self.rights = EVERYTHING
        """What its key allows, if it has one (permissions.py)."""
        self.quotas: Quotas | None = None
        """What its peer may take."""
        self.listening: dict[str, AudioFormat] = {}
        """What it listens to, "*" being everything, and in which format."""
        self.queues: dict[str, ListenerQueue] = {}
        self._try_send = try_send
        self._outbox: deque[list[bytes]] = deque()
        self._outbox_bytes = 0

    def send(self, message: Message) -> None:
        """Send now or later, in order; not at all what the client's version of the protocol lacks."""
        if wire.since(type(message)) > self.version:
            return
        parts = wire.encode(message)
        if not self._outbox and not self.queues and not self.lost and self._try_send(self.identity, parts):
            return
        self._outbox.append(parts)
        self._outbox_bytes += sum(map(len, parts))
        self.pump()
        if len(self._outbox) > MAX_OUTBOX or self._outbox_bytes > MAX_OUTBOX_BYTES:
            self.lost = f"it reads too slowly: {len(self._outbox)} messages ({self._outbox_bytes} bytes) wait for it"

    def dismiss(self, fault: WireError) -> None:
        """Tell the client why it is to go. It is lost from then on."""
        self.send(wire.error_for(fault, fatal=True))
        self.lost = self.lost or fault.text

    def try_send(self, message: Message) -> bool:
        """Send now if nothing waits and the queue takes it."""
        return not self._outbox and not self.lost and self._try_send(self.identity, wire.encode(message))

    def pump(self) -> None:
        """Send what waits."""
        while self._outbox and not self.lost and self._try_send(self.identity, self._outbox[0]):
            self._outbox_bytes -= sum(map(len, self._outbox.popleft()))
        for stream, queue in list(self.queues.items()):
            queue.pump(self.try_send)
            if queue.is_closed and queue.is_empty:
                del self.queues[stream]

    def needs_care(self, now_ns: int) -> bool:
        """Whether something waits for it, it is lost, or it is silent."""
        return bool(self._outbox or self.queues or self.lost) or now_ns - self.last_seen_ns > PROBE_NS

    def excuse(self, absent_ns: int) -> None:
        """The gateway did not run for a while: that the client was not heard meanwhile says nothing."""
        self.last_seen_ns += absent_ns

    def probe(self, now_ns: int) -> None:
        """Send a message to a client that is silent, to find out whether it is connected."""
        if now_ns - max(self.last_seen_ns, self._probed_ns) > PROBE_NS:
            self._probed_ns = now_ns
            self.try_send(wire.Pong(t_client_ns=0, t_daemon_ns=now_ns))

    def offer(self, stream: str, message: Message) -> bool:
        """Take a message of a stream, if this client listens to it; returns whether it has now lost audio of it, once."""
        wanted = self.listening.get(stream, self.listening.get("*"))
        if wanted is None:
            return False
        queue = self.queues.setdefault(stream, ListenerQueue(wanted))
        if queue.converter.wanted != wanted:
            queue.converter = AudioConverter(wanted)
        if not queue.offer(message, self.try_send) or queue.is_warned:
            return False
        queue.is_warned = True
        notice = notices.lost_audio(stream)
        self.send(wire.Warning(int(notice.code), notice.code.name, notice.text, stream, queue.generation))
        return True

    def listen(self, stream: str, wanted: AudioFormat = AudioFormat()) -> None:
        """Listen to a stream, or to all ("*"). Raises WireError if the client has named MAX_LISTENING streams."""
        if stream not in {"*", *self.listening} and len(self.listening) >= MAX_LISTENING:
            text = f'a client can listen to {MAX_LISTENING} streams by name; use "*" for all streams'
            raise WireError(Code.AT_CAPACITY, text, stream)
        self.listening[stream] = wanted

    def unlisten(self, stream: str) -> None:
        """Undo a `listen`; what waits of streams that the client does not listen to any more is dropped."""
        self.listening.pop(stream, None)
        if "*" not in self.listening:
            self.queues = {name: queue for name, queue in self.queues.items() if name in self.listening}

    def give_up_listening(self, stream: str, text: str) -> None:
        """A mistake of ours: the client hears no more of the stream, nor of all streams, and is told why."""
        for name in (stream, "*"):
            self.unlisten(name)
        self.queues.pop(stream, None)
        self.send(wire.error_for(WireError(Code.INTERNAL, text, stream)))

    def stream_closed(self, stream: str) -> None:
        """A stream is closed; what waits of it is still sent."""
        if queue := self.queues.get(stream):
            queue.is_closed = True
        if (closed := sum(queue.is_closed for queue in self.queues.values())) > MAX_CLOSED_QUEUES:
            self.lost = f"it reads too slowly: the rest of {closed} closed streams waits for it"

    def gone(self) -> None:
        """It is connected no more."""
        self.lost = self.lost or "its connection is gone"
