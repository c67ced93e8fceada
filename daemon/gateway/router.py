"""The front desk: what clients ask for, and who answers it.

Rules: no socket; peers send, time is passed in. The desk admits clients, has streams admitted (admission.py), and hands
everything about a stream to its session. Bytes that are no message, or not now, become a numbered error to their sender
and to nobody else.
"""

import logging
from collections.abc import Callable

from glowd.daemon import wire
from glowd.daemon.config import Config, ServerSettings
from glowd.daemon.gateway.admission import Admission
from glowd.daemon.gateway.connections import Peer, TrySend
from glowd.daemon.gateway.handles import Speaker
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.streams import Streams
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import Snapshot

SERVER = "glowd"
MEL_FAULTS = {Code.BAD_SHAPE, Code.NOT_FINITE, Code.OUT_OF_RANGE, Code.TOO_LARGE}

log = logging.getLogger("glowd.gateway")


class Desk:
    """Peers, and what they ask for. Owner: the gateway's only thread."""

    def __init__(self, config: Config, pools: dict[str, Pool], speaker: Speaker, try_send: TrySend) -> None:
        self.server: ServerSettings = config.server
        self.pools, self.speaker = pools, speaker
        self.limits = wire.Limits(
            max_message_bytes=config.server.max_message_bytes, max_chunk_frames=config.server.max_chunk_frames
        )
        self.peers: dict[bytes, Peer] = {}
        self.streams = Streams(pools, self.peers)
        self._admission = Admission(config, pools, speaker, self.streams)
        self.snapshot: Callable[[], Snapshot] = lambda: Snapshot(state="ready")
        self._try_send = try_send

    # ------------------------------------------------------------------ messages

    def handle(self, identity: bytes, parts: list[bytes], now_ns: int) -> None:
        """One multipart message of a client, whatever it is."""
        peer = self.peers.get(identity)
        try:
            message = wire.decode(parts, self.limits)
            if peer is None:
                self._greet(identity, message, now_ns)
                return
            peer.heard_ns = now_ns
            self._dispatch(peer, message, now_ns)
        except WireError as fault:
            self._refuse(identity, peer, fault)

    def _refuse(self, identity: bytes, peer: Peer | None, fault: WireError) -> None:
        if peer is None:
            self._try_send(identity, wire.encode(wire.error_for(fault, fatal=True)))
            return
        session = self.streams.own(peer, fault.stream)
        if session is not None and fault.code in MEL_FAULTS:
            session.refuse_mel(fault)
        else:
            peer.send(wire.error_for(fault))

    def _greet(self, identity: bytes, message: Message, now_ns: int) -> None:
        if not isinstance(message, wire.Hello):
            raise WireError(Code.NO_HELLO, f"the first message must be hello, not {message.TYPE}")
        if message.min_version > wire.VERSION or message.max_version < wire.OLDEST_VERSION:
            text = (
                f"the client speaks versions {message.min_version}..{message.max_version}, "
                f"glowd speaks {wire.OLDEST_VERSION}..{wire.VERSION}"
            )
            raise WireError(Code.BAD_VERSION, text)
        if len(self.peers) >= self.server.max_clients:
            raise WireError(Code.TOO_MANY_CLIENTS, f"{self.server.max_clients} clients are connected, the most allowed")
        peer = self.peers[identity] = Peer(identity, message.client, now_ns, self._try_send)
        self._welcome(peer, message, now_ns)

    def _welcome(self, peer: Peer, hello: wire.Hello, now_ns: int) -> None:
        sinks = ["device"] if self.speaker.there(now_ns) else []
        peer.version = max(peer.version, min(wire.VERSION, hello.max_version))
        peer.send(
            wire.Welcome(
                version=peer.version,
                server=SERVER,
                voices=[info.to_map() for pool in self.pools.values() if (info := pool.info(now_ns))],
                sinks=[*sinks, "socket", "file", "null"],
                limits={
                    "max_message_bytes": self.server.max_message_bytes,
                    "max_chunk_frames": self.server.max_chunk_frames,
                    "max_streams": self.server.max_streams,
                    "max_utterance_s": self.server.max_utterance_s,
                },
                t_client_ns=hello.t_client_ns,
                t_daemon_ns=now_ns,
            )
        )

    def _dispatch(self, peer: Peer, message: Message, now_ns: int) -> None:
        match message:
            case wire.Hello():
                self._welcome(peer, message, now_ns)
            case wire.Ping():
                peer.send(wire.Pong(t_client_ns=message.t_client_ns, t_daemon_ns=now_ns))
            case wire.Status():
                found = self.snapshot()
                peer.send(wire.State(stream="", state=found.state, info=found.to_map()))
            case wire.Listen():
                peer.listen(message.stream)
            case wire.Unlisten():
                peer.unlisten(message.stream)
            case wire.Bye():
                self.drop_peer(peer, "it said bye")
            case wire.Open():
                self._open(peer, message, now_ns)
            case wire.Flush() if self.streams.own(peer, message.stream) is None:
                self._flush_for(peer, message)
            case _:
                self._to_session(peer, message, now_ns)

    def _to_session(self, peer: Peer, message: Message, now_ns: int) -> None:
        name = getattr(message, "stream", "")
        session = self.streams.own(peer, name)
        if session is None:
            raise WireError(Code.UNKNOWN_STREAM, f"this client has no stream {name!r}", name)
        match message:
            case wire.Mel():
                session.mel(message, now_ns)
            case wire.End():
                session.end(message)
            case wire.Flush():
                session.flush(message)
            case wire.Pause() | wire.Resume():
                session.pause(isinstance(message, wire.Pause))
            case wire.Gain():
                session.gain(message.gain_db)
            case wire.Close():
                self.streams.drop(session)
            case _:
                raise WireError(Code.UNKNOWN_TYPE, f"{message.TYPE} is not for the daemon to read", name)

    def _flush_for(self, peer: Peer, message: wire.Flush) -> None:
        """Somebody else interrupts: any client that may talk to the daemon may silence a stream, in whatever generation."""
        session = self.streams.sessions.get(message.stream)
        if session is None:
            raise WireError(Code.UNKNOWN_STREAM, f"there is no stream {message.stream!r}", message.stream)
        number = session.generation.number
        if not session.begun:  # nothing to interrupt, and nothing the stream's client should hear of
            peer.send(wire.Flushed(stream=message.stream, generation=number, last_sample_played=-1, dropped_samples=0))
        else:
            session.interrupt(message.fade_ms)

    def _open(self, peer: Peer, asked: wire.Open, now_ns: int) -> None:
        try:
            session = self._admission.admit(peer, asked, now_ns)
        except WireError as fault:
            peer.send(wire.error_for(WireError(fault.code, fault.text, asked.stream), fatal=True))
            return
        self.streams.add(session, peer)
        peer.send(
            wire.Opened(
                stream=asked.stream,
                voice=session.voice,
                rate_hz=session.rate_hz,
                hop=session.terms.hop,
                credit_frames=session.generation.granted_frames,
            )
        )
        session.opened()

    # ---------------------------------------------------------------- departures

    def drop_peer(self, peer: Peer, why: str) -> None:
        """A client is gone: its streams fade out and their places are free."""
        log.info("client %s is dropped: %s", peer.name, why)
        for session in self.streams.of(peer):
            self.streams.drop(session)
        self.peers.pop(peer.identity, None)

    def tick(self, now_ns: int) -> None:
        """Send what waited; drop clients that are gone or silent."""
        for peer in list(self.peers.values()):
            peer.pump()
            peer.probe(now_ns)
            if now_ns - peer.heard_ns > self.server.idle_timeout_s * 1e9:
                fault = WireError(Code.IDLE_TIMEOUT, f"nothing was heard for {self.server.idle_timeout_s:g} s")
                peer.send(wire.error_for(fault, fatal=True))
                peer.gone = peer.gone or fault.text
            if peer.gone:
                self.drop_peer(peer, peer.gone)
        for session in list(self.streams.sessions.values()):
            session.settle()

    def stop(self) -> None:
        """The daemon stops: every running generation gets its ending, every client a word."""
        for session in list(self.streams.sessions.values()):
            if session.begun:
                session.fail(Code.STOPPING, "the daemon is stopping")
        fault = WireError(Code.STOPPING, "the daemon is stopping")
        for peer in self.peers.values():
            peer.send(wire.error_for(fault, fatal=True))
