"""The messages of clients: each is answered here, or handed to the session that it concerns.

Rules: no socket; connections send, time is passed in. The router admits clients, has streams opened (placement/admission.py), and
hands everything about a stream to its session. Bytes that cannot be decoded, and messages that do not fit, become a
numbered error for their sender and for nobody else.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial

from glowd.daemon import wire
from glowd.daemon.config import Config
from glowd.daemon.gateway.clients.connections import ClientConnection, TrySend
from glowd.daemon.gateway.clients.peers import peer_of
from glowd.daemon.gateway.clients.quota_keeper import MESSAGES, REQUESTS, QuotaKeeper, is_costly
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.gateway.containment import contained, give_up
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.admission import Admission
from glowd.daemon.gateway.placement.draining import Draining
from glowd.daemon.gateway.placement.pool import Pool
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.audio_format import AudioFormat
from glowd.daemon.runtime.keys import ClientKey, Keys
from glowd.daemon.runtime.quotas import SETTINGS
from glowd.daemon.runtime.sockets import Sender, wire_bytes
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Snapshot

SERVER = "glowd"
KEYS_EVERY_NS = 1_000_000_000
"""Between two looks at the files of keys: a look reads a directory, and a tick comes every 20 ms."""
MEL_FAULTS = {Code.BAD_SHAPE, Code.NOT_FINITE, Code.OUT_OF_RANGE, Code.TOO_LARGE}

log = logging.getLogger("glowd.gateway")


class ClientRouter:
    """Connects and disconnects clients, and routes their messages. Owner: the gateway's only thread."""

    def __init__(
        self,
        config: Config,
        clients: dict[bytes, ClientConnection],
        streams: StreamRegistry,
        pools: Mapping[str, Pool],
        speaker: SpeakerHandle,
        try_send: TrySend,
        take_snapshot: Callable[[], Snapshot],
        visitors: Visitors,
        draining: Draining,
        keys: Keys = dict,
    ) -> None:
        """`clients` is filled here; others read it. `keys`: those of clients of other machines that count."""
        self._keys, self._keys_read_ns = keys, 0
        self.clients, self.streams = clients, streams
        self._server, self._pools, self._speaker = config.server, pools, speaker
        self._keeper = QuotaKeeper(config, clients, visitors, try_send)
        self._admission = Admission(config, pools, speaker, streams)
        self._draining = draining
        self._try_send, self._take_snapshot, self._visitors = try_send, take_snapshot, visitors
        self._limits = wire.Limits(
            max_message_bytes=config.server.max_message_bytes, max_chunk_frames=config.server.max_chunk_frames
        )

    def use(self, config: Config) -> None:
        """Use other settings, for clients and streams that come."""
        self._server = config.server
        self._keeper.use(config)
        self._admission.use(config)
        self._use_keys()

    # ------------------------------------------------------------------ messages

    def handle(
        self,
        identity: bytes,
        parts: list[bytes],
        now_ns: int,
        waits_since_ns: int | None = None,
        sender: Callable[[], Sender] = Sender,
    ) -> None:
        """One multipart message of a client, whatever its bytes are.

        `waits_since_ns`: it may have waited since then, because the gateway did not run. `sender` is asked who
        sends it only if the client is not known yet.
        """
        client = self.clients.get(identity)
        key, descriptor = (client.peer.public_key, client.descriptor) if client else sender()[1:3]
        self._visitors.read(descriptor, wire_bytes(parts, bool(key)))
        if not self._keeper.may_send(MESSAGES, identity, client, sender, now_ns):
            return
        try:
            message = wire.decode(parts, self._limits)
            if is_costly(message) and not self._keeper.may_send(REQUESTS, identity, client, sender, now_ns):
                return
            if client is None:
                with contained("hello", partial(self.expel, identity)):
                    self._connect(identity, message, now_ns, sender())
                return
            self._check_rights(client, message)
            client.last_seen_ns = now_ns
            try:
                self._route(client, message, now_ns, waits_since_ns or now_ns)
            except WireError:
                raise
            except Exception as error:  # the edge between peers
                give_up(error, f"{message.TYPE} of client {client.name}", partial(self._give_up, client, message))
        except WireError as fault:
            self._refuse(identity, client, fault)

    def _refuse(self, identity: bytes, client: ClientConnection | None, fault: WireError) -> None:
        if client is None:
            self._try_send(identity, wire.encode(wire.error_for(fault, fatal=True)))
            return
        stream = self.streams.find_own(client, fault.stream)
        if stream is not None and fault.code in MEL_FAULTS:
            stream.session.client.refuse_mel(fault)
        else:
            client.send(wire.error_for(fault))

    def _give_up(self, client: ClientConnection, message: Message, text: str) -> None:
        """A message of a client met a mistake of ours: its stream bears it, or else the client is told."""
        name = getattr(message, "stream", "")
        stream = self.streams.find_own(client, name)
        if stream is not None and not isinstance(message, wire.Open):
            self.streams.give_up(stream, text)
            return
        fault = WireError(Code.INTERNAL, text, "" if name == "*" else name)
        client.send(wire.error_for(fault, fatal=isinstance(message, wire.Open)))
        if stream is not None:
            self.streams.close(stream)

    def expel(self, identity: bytes, text: str) -> None:
        """Tell whoever has this identity that nothing can be done for it, and forget it."""
        self._try_send(identity, wire.encode(wire.error_for(WireError(Code.INTERNAL, text), fatal=True)))
        if client := self.clients.get(identity):
            self.disconnect(client, text)

    def _check_rights(self, client: ClientConnection, message: Message) -> None:
        """Raise WireError for a message that the client's key does not allow."""
        if client.rights.admin:
            return
        stream = getattr(message, "stream", "")
        if role := client.rights.lacks(message, self.streams.find_own(client, stream) is not None):
            text = f"{message.TYPE} needs the role {role!r}, which {client.peer.name} has not (glowctl key list)"
            raise WireError(Code.NOT_ALLOWED, text, "" if stream == "*" else stream)

    def _use_key(self, client: ClientConnection, keys: Mapping[bytes, ClientKey]) -> None:
        """Give the client the rights that its key has now. Raises WireError if it was revoked."""
        client.quotas = self._keeper.quotas
        if not client.peer.public_key:
            return
        if (key := keys.get(client.peer.public_key)) is None:
            raise WireError(Code.NOT_ALLOWED, f"{client.peer.name} was revoked")
        client.rights, client.quotas = key.rights, client.quotas.changed(key.quotas)

    def _connect(self, identity: bytes, message: Message, now_ns: int, sender: Sender) -> None:
        if not isinstance(message, wire.Hello):
            raise WireError(Code.NO_HELLO, f"the first message must be hello, not {message.TYPE}")
        if message.min_version > wire.VERSION or message.max_version < wire.OLDEST_VERSION:
            supported = f"{message.min_version}..{message.max_version}"
            ours = f"{wire.OLDEST_VERSION}..{wire.VERSION}"
            raise WireError(Code.BAD_VERSION, f"the client supports versions {supported}, glowd supports {ours}")
        if len(self.clients) >= self._server.max_clients:
            text = f"{self._server.max_clients} clients are connected, the most allowed (server.max_clients)"
            raise WireError(Code.TOO_MANY_CLIENTS, f"{text}; try again later")
        peer = peer_of(sender, identity)
        client = ClientConnection(identity, message.client, now_ns, self._try_send, peer, sender.descriptor)
        self._use_key(client, self._keys())
        self._keeper.require_place(client)
        self.clients[identity] = client
        self._visitors.greeted(sender.descriptor, identity)
        self._welcome(client, message, now_ns)

    def _welcome(self, client: ClientConnection, hello: wire.Hello, now_ns: int) -> None:
        quotas = client.quotas or self._keeper.quotas
        sinks = ["device"] if self._speaker.is_alive(now_ns) else []
        client.idle_timeout_s = self._server.idle_timeout_s
        client.version = max(client.version, min(wire.VERSION, hello.max_version))
        client.send(
            wire.Welcome(
                version=client.version,
                server=SERVER,
                voices=[voice for pool in self._pools.values() if (voice := pool.described(now_ns))],
                sinks=[*sinks, "socket", "file", "null"],
                limits={
                    "max_message_bytes": self._server.max_message_bytes,
                    "max_chunk_frames": self._server.max_chunk_frames,
                    "max_streams": self._server.max_streams,
                    **{setting.partition(".")[2]: getattr(quotas, name) for name, setting in SETTINGS.items()},
                    "max_utterance_s": self._server.max_utterance_s,
                    "idle_timeout_s": self._server.idle_timeout_s,
                    "role_wait_s": self._server.role_wait_s,
                },
                t_client_ns=hello.t_client_ns,
                t_daemon_ns=now_ns,
            )
        )

    def _place(self, message: wire.Engine) -> None:
        """Whether an engine, or the daemon, gets streams. Raises WireError."""
        if message.engine == wire.WHOLE_DAEMON:
            self._draining.place(message.action)
            return
        engines = {engine.name: engine for pool in self._pools.values() for engine in pool.engines}
        if (engine := engines.get(message.engine)) is None:
            known = ", ".join(engines) or "none"
            raise WireError(Code.BAD_FIELD, f"there is no engine {message.engine!r:.80}; engines: {known}")
        engine.place(message.action)

    def _route(self, client: ClientConnection, message: Message, now_ns: int, arrived_ns: int) -> None:
        match message:
            case wire.Mel():  # nearly always
                self._to_session(client, message, arrived_ns)
            case wire.Hello():
                self._welcome(client, message, now_ns)
            case wire.Ping():
                client.send(wire.Pong(t_client_ns=message.t_client_ns, t_daemon_ns=now_ns))
            case wire.Engine():
                self._place(message)
                snapshot = self._take_snapshot()
                client.send(wire.State(stream="", state=snapshot.state, info=snapshot.to_map()))
            case wire.Status():
                snapshot = self._take_snapshot()
                client.send(wire.State(stream="", state=snapshot.state, info=snapshot.to_map()))
            case wire.Listen():
                self._keeper.require_listen(client, message.stream)
                wanted = AudioFormat(message.audio_rate_hz, message.audio_dtype)
                self.streams.listen(client, message.stream, wanted)
            case wire.Unlisten():
                self.streams.unlisten(client, message.stream)
            case wire.Bye():
                self.disconnect(client, "it sent bye")
            case wire.Open():
                self._open(client, message, now_ns)
            case wire.Flush() | wire.Pause() | wire.Resume() | wire.Gain() if not self._owns(client, message.stream):
                self._control(client, message)
            case _:
                self._to_session(client, message, arrived_ns)

    def _to_session(self, client: ClientConnection, message: Message, arrived_ns: int) -> None:
        name = getattr(message, "stream", "")
        stream = self.streams.find_own(client, name)
        if stream is None:
            raise WireError(Code.UNKNOWN_STREAM, f"this client has no stream {name!r}; open it first", name)
        side = stream.session.client
        match message:
            case wire.Mel():
                side.mel(message, arrived_ns)
            case wire.End():
                side.end(message, arrived_ns)
            case wire.Flush():
                side.flush(message)
            case wire.Pause() | wire.Resume():
                side.pause(isinstance(message, wire.Pause))
            case wire.Gain():
                side.gain(message.gain_db)
            case wire.Close():
                self.streams.close(stream)
            case _:
                raise WireError(Code.UNKNOWN_TYPE, f"{message.TYPE} is a message of the daemon, not of clients", name)

    def _owns(self, client: ClientConnection, stream: str) -> bool:
        return self.streams.find_own(client, stream) is not None

    def _control(self, client: ClientConnection, message: wire.Flush | wire.Pause | wire.Resume | wire.Gain) -> None:
        """Do something to a stream of another client. Of its generations the running one is meant."""
        stream = self.streams.find(message.stream)
        if stream is None:
            raise WireError(Code.UNKNOWN_STREAM, f"there is no stream {message.stream!r}", message.stream)
        side, state = stream.session.client, stream.session.state
        match message:
            case wire.Pause() | wire.Resume():
                side.pause(isinstance(message, wire.Pause))
            case wire.Gain():
                side.gain(message.gain_db)
            case wire.Flush() if state.phase.has_begun:
                side.flush_by_other(message.fade_ms)
            case wire.Flush():  # nothing to flush, so the stream's own client learns nothing
                number = state.utterance.number
                client.send(wire.Flushed(message.stream, number, last_sample_played=-1, dropped_samples=0))

    def _open(self, client: ClientConnection, asked: wire.Open, now_ns: int) -> None:
        try:
            self._draining.require_open()
            stream = self._admission.admit(client, asked, now_ns)
        except WireError as fault:
            self.streams.counts_of_all.refused[fault.code.name] += 1
            client.send(wire.error_for(WireError(fault.code, fault.text, asked.stream), fatal=True))
            return
        client.send(_opened(stream))
        stream.session.client.opened()

    # ---------------------------------------------------------------- departures

    def gone(self, identity: bytes) -> None:
        """Whoever had this identity is connected no more."""
        if client := self.clients.get(identity):
            client.gone()

    def disconnect(self, client: ClientConnection, why: str) -> None:
        """Close the streams of a client and forget it."""
        log.info("client %s is disconnected: %s", client.name, why)
        self.clients.pop(client.identity, None)
        self._visitors.part(client.descriptor, client.identity)
        self.streams.forget(client)

    def tick(self, now_ns: int) -> None:
        """Send what waits; disconnect clients that are lost or silent."""
        if now_ns - self._keys_read_ns >= KEYS_EVERY_NS:
            self._keys_read_ns = now_ns
            with contained("looking at the keys", lambda _: None):
                self._use_keys()
            self._keeper.tick(now_ns)
            for client in self.clients.values():
                self._draining.look(client)
        self.streams.tick(now_ns)
        for client in list(self.clients.values()):
            if client.needs_care(now_ns):
                with contained(f"client {client.name}: sending", partial(self.expel, client.identity)):
                    self._tick_client(client, now_ns)
        for stream in self.streams:
            if stream.session.state.sinks.waits:
                with self.streams.contained(stream, "settling"):
                    stream.session.sinks.settle()

    def _use_keys(self) -> None:
        """Give every client the rights and quotas that count now; one whose key was revoked is lost."""
        keys = self._keys()
        for client in self.clients.values():
            try:
                self._use_key(client, keys)
                self._end_what_may_not(client)
            except WireError as revoked:
                client.dismiss(revoked)

    def _end_what_may_not(self, client: ClientConnection) -> None:
        """End streams of a client, and what it listens to, without the role for it: its key may have lost that."""
        for name in list(client.listening):
            try:
                self._check_rights(client, wire.Listen(name))
            except WireError as fault:
                self.streams.unlisten(client, name)
                client.send(wire.error_for(fault))
        may_push = client.rights.push or client.rights.admin
        for stream in [] if may_push else self.streams.owned_by(client):
            try:
                self._check_rights(client, wire.Close(stream.name))
            except WireError as fault:
                client.send(wire.error_for(fault, fatal=True))
                self.streams.close(stream)

    def _tick_client(self, client: ClientConnection, now_ns: int) -> None:
        client.pump()
        client.probe(now_ns)
        if now_ns - client.last_seen_ns > client.idle_timeout_s * 1e9:
            text = f"nothing was received for {client.idle_timeout_s:g} s; send ping while there is nothing else"
            client.dismiss(WireError(Code.IDLE_TIMEOUT, text))
        if client.lost:
            self.disconnect(client, client.lost)

    def stop(self) -> None:
        """The daemon stops: end every running utterance, and tell every client."""
        for stream in self.streams:
            if stream.session.state.phase.has_begun:
                with contained(f"stream {stream.name}: stopping", lambda _: None):
                    stream.session.sinks.report_position()
                    stream.session.state.fail(Code.STOPPING, "the daemon is stopping")
        fault = WireError(Code.STOPPING, "the daemon is stopping")
        for client in self.clients.values():
            client.send(wire.error_for(fault, fatal=True))


def _opened(stream: Stream) -> wire.Opened:
    state = stream.session.state
    return wire.Opened(
        stream=stream.name,
        voice=state.voice,
        rate_hz=state.rate_hz,
        hop=state.limits.hop,
        credit_frames=state.utterance.granted_frames - state.utterance.frames_in,
        generation=state.utterance.number,
        audio_rate_hz=state.asked.audio_rate_hz,
        audio_latency_ms=state.audio_format.latency_ms(state.rate_hz),
    )
