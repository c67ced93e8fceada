"""The streams that are open: one record for each, in one registry.

Rules: no socket, and no decision. Who may open a stream is decided in admission.py, in which engine it is placed in
pool.py, what it does in streams/session.py.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial

from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.clients.frame_quota import FrameQuota
from glowd.daemon.gateway.containment import contained
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.streams.accounts import Accounts
from glowd.daemon.gateway.streams.audio_format import AudioFormat
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.notices import Notice, held_back, slow_listener
from glowd.daemon.gateway.streams.replies import SessionPorts
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.gateway.streams.totals import Counts
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message


class Stream:
    """The record of one open stream: its session, its owner, its engine and the key of its running utterance.

    It is the SessionPorts of its session, so that a stream that moves has one engine, and no copy of the old one. Only
    the registry changes it.
    """

    session: Session
    """Until it is closed."""

    def __init__(self, name: str, owner: ClientConnection, engine: EngineHandle, registry: "StreamRegistry") -> None:
        self.name, self.owner, self.engine, self._registry = name, owner, engine, registry
        self.key = -1

    # ----------------------------------------------------------- see SessionPorts

    @property
    def recordings(self) -> Recordings:
        """The directory of file sinks."""
        owner, registry = self.owner, self._registry
        if owner.quotas is None:
            return registry.recordings
        return registry.recordings.of(registry.accounts.of(owner.peer.key, owner.peer.name), owner.quotas)

    def key_of(self, stream: str) -> int:
        """The key of the running utterance of another stream of the same client; 0 if there is none."""
        other = self._registry.find_own(self.owner, stream)
        return other.key if other is not None and other.session.state.phase.has_begun else 0

    @property
    def counts(self) -> Counts:
        """What is counted over all streams."""
        return self._registry.counts_of_all

    def to_owner(self, message: Message) -> None:
        """Send to the stream's own client, now or later."""
        self.owner.send(message)

    def try_owner(self, message: Message) -> bool:
        """Send to the stream's own client now, if it reads."""
        return self.owner.try_send(message)

    def took(self, frames: int) -> None:
        """See SessionPorts."""
        if (quotas := self.owner.quotas) is not None and quotas.frames_s:
            self._registry.frames.take(self.owner.peer.key, quotas.frames_s, frames)

    def held_back(self) -> Notice | None:
        """See SessionPorts."""
        quotas, peer = self.owner.quotas, self.owner.peer
        if quotas is None or not self._registry.frames.is_full(peer.key, quotas.frames_s):
            return None
        self._registry.held_back[self] = None
        return held_back(peer.name, quotas.frames_s, quotas.source("frames_s"))

    def to_engine(self, message: Message) -> None:
        """Send to the engine in which the stream is placed now."""
        self.engine.send(message)

    @property
    def cushion_ms(self) -> float:
        """See SessionPorts."""
        return self.engine.cushion_ms

    def blame_engine(self, text: str) -> bool:
        """An engine of another machine that cannot be relied on is used no more; for one of ours it is a bug of ours."""
        if self.engine.origin is None:
            return False
        self.engine.disconnect(text)
        return True

    def to_speaker(self, message: Message) -> None:
        """Send to the speaker."""
        self._registry.speaker.send(message)

    @property
    def has_listeners(self) -> bool:
        """Whether any client listens to any stream."""
        return self._registry.has_listeners

    def to_listeners(self, message: Message) -> None:
        """Offer to the other clients that listen."""
        self._registry.broadcast(self, message)

    def new_key(self, known: int = 0) -> int:
        """The key of the next utterance, which may be rendered in another engine."""
        if self.key >= 0:
            for look in self._registry.between_utterances:
                look(self)
        return self._registry.rekey(self, known)


class StreamRegistry:
    """All open streams, by name and by key. `clients` are those that may listen. Owner: the gateway's only thread."""

    def __init__(
        self, clients: Mapping[bytes, ClientConnection], speaker: SpeakerHandle, recordings: Recordings
    ) -> None:
        self.speaker, self.recordings, self.counts_of_all = speaker, recordings, Counts()
        self.accounts, self.frames = Accounts(), FrameQuota()
        self.held_back: dict[Stream, None] = {}
        """The streams that are to be granted credit once their peers may send again; the one that waits longest first."""
        self._clients = clients
        self.between_utterances: list[Callable[[Stream], object]] = []
        """Called between two utterances of a stream: it may be moved, or its client sent elsewhere."""
        self._listeners: dict[bytes, ClientConnection] = {}
        """The clients that listen to anything: each chunk of each stream is offered to them, and to no others."""
        self._by_name: dict[str, Stream] = {}
        self._by_key: dict[int, Stream] = {}
        # An engine may still run streams of a gateway that ended; its keys must differ from ours.
        self._last_key = time.time_ns() // 1000

    def use(self, config: Config) -> None:
        """Use other settings, for files that are opened."""
        self.recordings = Recordings(config.files)

    def tick(self, now_ns: int) -> None:
        """Grant credit to the streams whose peers may send again."""
        self.frames.tick(now_ns)
        held, self.held_back = self.held_back, {}
        for stream in (one for one in held if self._by_name.get(one.name) is one):
            with self.contained(stream, "granting credit"):
                stream.session.sinks.grant_due()

    # ----------------------------------------------------------------- questions

    def __iter__(self) -> Iterator[Stream]:
        """The streams that are open now; they may be closed meanwhile."""
        return (stream for stream in list(self._by_name.values()) if self._by_name.get(stream.name) is stream)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Stream | None:
        """The stream of that name."""
        return self._by_name.get(name)

    def find_own(self, client: ClientConnection, name: str) -> Stream | None:
        """The stream of that name, if the client owns it."""
        stream = self._by_name.get(name)
        return stream if stream is not None and stream.owner is client else None

    def find_key(self, key: int) -> Stream | None:
        """The stream whose running utterance has that key."""
        return self._by_key.get(key)

    @property
    def keys(self) -> set[int]:
        """The keys of all running utterances."""
        return set(self._by_key)

    @property
    def has_listeners(self) -> bool:
        """Whether any client listens to any stream."""
        return bool(self._listeners)

    def owned_by(self, client: ClientConnection) -> list[Stream]:
        """The streams of a client."""
        return [stream for stream in self if stream.owner is client]

    def placed_in(self, engine: EngineHandle) -> list[Stream]:
        """The streams in an engine, in the order in which they were opened."""
        return [stream for stream in self if stream.engine is engine]

    def counts(self) -> Counter[str]:
        """How many streams are in each engine, by its name."""
        return Counter(stream.engine.name for stream in self._by_name.values())

    # ------------------------------------------------------------------- changes

    def place(
        self, name: str, owner: ClientConnection, engine: EngineHandle, session_for: Callable[[SessionPorts], Session]
    ) -> Stream:
        """Open a stream in an engine."""
        stream = Stream(name, owner, engine, self)
        stream.session = session_for(stream)
        self._by_name[name] = stream
        return stream

    def rekey(self, stream: Stream, known: int = 0) -> int:
        """Give a stream the key of its next utterance; messages with the last key do not reach it any more.

        `known`: the key that it had before it was lost. One that is in use, or could be given yet, is not taken over.
        """
        self._by_key.pop(stream.key, None)
        if 0 < known <= self._last_key and known not in self._by_key:
            stream.key = known
        else:
            self._last_key += 1
            stream.key = self._last_key
        self._by_key[stream.key] = stream
        return stream.key

    def move(self, stream: Stream, engine: EngineHandle) -> None:
        """Continue a stream in another engine; the one that had it drops it, should it be alive."""
        stream.session.engine.drop()
        stream.engine = engine
        stream.session.engine.resume()

    def close(self, stream: Stream) -> None:
        """Close a stream and remove it, in any case."""
        try:
            stream.session.state.close()
        finally:
            self._by_key.pop(stream.key, None)
            self._by_name.pop(stream.name, None)
            self.held_back.pop(stream, None)
            for client in self._clients.values():
                client.stream_closed(stream.name)
            del stream.session  # which knows the stream: what it keeps would stay until the garbage is collected

    def listen(self, client: ClientConnection, name: str, wanted: AudioFormat = AudioFormat()) -> None:
        """Have a client hear a stream, or all ("*"). Raises WireError if it has named too many."""
        client.listen(name, wanted)
        self._listeners[client.identity] = client

    def unlisten(self, client: ClientConnection, name: str) -> None:
        """Undo a `listen`."""
        client.unlisten(name)
        if not client.listening:
            self._listeners.pop(client.identity, None)

    def forget(self, client: ClientConnection) -> None:
        """A client is gone: it hears nothing more, and its streams are closed."""
        self._listeners.pop(client.identity, None)
        for stream in self.owned_by(client):
            with contained(f"stream {stream.name}: closing it", lambda _: None):
                self.close(stream)

    def contained(self, stream: Stream, what: str) -> AbstractContextManager[None]:
        """A block that is about one stream: what goes wrong in it ends the utterance, or if that fails the stream."""
        return contained("stream {}: {}", partial(self.give_up, stream), stream.name, what)

    def give_up(self, stream: Stream, text: str) -> None:
        """End the utterance of a stream, because of a mistake of ours. A stream that cannot go on is closed."""
        with contained(f"stream {stream.name}: ending its utterance", lambda _: self.close(stream)):
            stream.session.state.fail(Code.INTERNAL, text)

    def broadcast(self, stream: Stream, message: Message) -> None:
        """Offer a message of a stream to the clients that listen, but not to its owner."""
        for client in list(self._listeners.values()):
            if client is not stream.owner:
                what = f"client {client.name}: listening to stream {stream.name}"
                with contained(what, partial(client.give_up_listening, stream.name)):
                    if client.offer(stream.name, message):
                        stream.session.state.warn(slow_listener(client.name))
