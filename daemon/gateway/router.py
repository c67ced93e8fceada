"""The front desk: what clients ask for, and who may have it.

Rules: no socket; peers send, time is passed in. The desk admits clients and streams, and hands everything about a stream
to its session. Bytes that are no message, or not now, become a numbered error to their sender and to nobody else.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glowd.daemon import wire
from glowd.daemon.config import Config, Server
from glowd.daemon.gateway.connections import Peer, TrySend
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.placement import Pool
from glowd.daemon.gateway.replies import Outside
from glowd.daemon.gateway.session import Session
from glowd.daemon.gateway.utterance import CREDIT_STEP_FRAMES, Terms
from glowd.daemon.wire import Code, WireError
from glowd.daemon.wire.fields import Message

SERVER = "glowd"
DEVICE_SLACK_MS = 100
"""The device tells its position every 50 ms, and keeps a little audio in reserve for a fade."""
MEL_FAULTS = {Code.BAD_SHAPE, Code.NOT_FINITE, Code.OUT_OF_RANGE, Code.TOO_LARGE}

log = logging.getLogger("glowd.gateway")


class Desk:
    """Peers and sessions. Owner: the gateway's only thread."""

    def __init__(self, config: Config, pools: dict[str, Pool], speaker: Speaker, try_send: TrySend) -> None:
        self.server: Server = config.server
        self.voices = config.voices
        self.pools, self.speaker = pools, speaker
        self.default_voice, self.recordings = config.default_voice, Path(config.files.directory)
        self.default_prefill_ms = config.speaker.prefill_ms
        self.limits = wire.Limits(
            max_message_bytes=config.server.max_message_bytes, max_chunk_frames=config.server.max_chunk_frames
        )
        self.peers: dict[bytes, Peer] = {}
        self.sessions: dict[str, Session] = {}
        self.owners: dict[str, Peer] = {}
        self.by_key: dict[int, Session] = {}
        self.snapshot: Callable[[], tuple[str, dict[str, Any]]] = lambda: ("ready", {})
        self._try_send = try_send
        # Keys must differ from those a former gateway gave to an engine that is still running.
        self._next_key = time.time_ns() // 1000

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
        session = self._own(peer, fault.stream)
        if session is not None and fault.code in MEL_FAULTS:
            session.refuse_mel(fault)
        else:
            peer.send(wire.error_for(fault))

    def _greet(self, identity: bytes, message: Message, now_ns: int) -> None:
        if not isinstance(message, wire.Hello):
            raise WireError(Code.NO_HELLO, f"the first message must be hello, not {message.TYPE}")
        if not message.min_version <= wire.VERSION <= message.max_version:
            text = (
                f"the client speaks versions {message.min_version}..{message.max_version}, glowd speaks {wire.VERSION}"
            )
            raise WireError(Code.BAD_VERSION, text)
        if len(self.peers) >= self.server.max_clients:
            raise WireError(Code.TOO_MANY_CLIENTS, f"{self.server.max_clients} clients are connected, the most allowed")
        peer = self.peers[identity] = Peer(identity, message.client, now_ns, self._try_send)
        self._welcome(peer, message, now_ns)

    def _welcome(self, peer: Peer, hello: wire.Hello, now_ns: int) -> None:
        sinks = ["device"] if self.speaker.there(now_ns) else []
        peer.send(
            wire.Welcome(
                version=wire.VERSION,
                server=SERVER,
                voices=[info for pool in self.pools.values() if (info := pool.info(now_ns))],
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
                state, info = self.snapshot()
                peer.send(wire.State(stream="", state=state, info=info))
            case wire.Listen():
                peer.listen(message.stream)
            case wire.Unlisten():
                peer.unlisten(message.stream)
            case wire.Bye():
                self.drop_peer(peer, "it said bye")
            case wire.Open():
                self._open(peer, message, now_ns)
            case wire.Flush() if message.stream not in self.owners or self.owners[message.stream] is not peer:
                self._flush_for(peer, message)
            case _:
                self._to_session(peer, message, now_ns)

    def _to_session(self, peer: Peer, message: Message, now_ns: int) -> None:
        name = getattr(message, "stream", "")
        session = self._own(peer, name)
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
                self.drop_session(session)
            case _:
                raise WireError(Code.UNKNOWN_TYPE, f"{message.TYPE} is not for the daemon to read", name)

    def _flush_for(self, peer: Peer, message: wire.Flush) -> None:
        """Somebody else interrupts: any client that may talk to the daemon may silence a stream, in whatever generation."""
        session = self.sessions.get(message.stream)
        if session is None:
            raise WireError(Code.UNKNOWN_STREAM, f"there is no stream {message.stream!r}", message.stream)
        number = session.generation.number
        if not session.begun:  # nothing to interrupt, and nothing the stream's client should hear of
            peer.send(wire.Flushed(stream=message.stream, generation=number, last_sample_played=-1, dropped_samples=0))
        else:
            session.interrupt(message.fade_ms)

    def _own(self, peer: Peer, name: str) -> Session | None:
        return self.sessions.get(name) if self.owners.get(name) is peer else None

    # ---------------------------------------------------------------- admission

    def _open(self, peer: Peer, asked: wire.Open, now_ns: int) -> None:
        try:
            session = self._admit(peer, asked, now_ns)
        except WireError as fault:
            peer.send(wire.error_for(WireError(fault.code, fault.text, asked.stream), fatal=True))
            return
        self.sessions[asked.stream], self.owners[asked.stream] = session, peer
        peer.send(
            wire.Opened(
                stream=asked.stream,
                voice=session.voice,
                rate_hz=session.rate_hz,
                hop=session.terms.hop,
                credit_frames=session.generation.granted_frames,
            )
        )

    def _admit(self, peer: Peer, asked: wire.Open, now_ns: int) -> Session:
        if asked.stream in self.sessions:
            raise WireError(
                Code.STREAM_EXISTS, f"a stream {asked.stream!r} is open already; close it or take another name"
            )
        if len(self.sessions) >= self.server.max_streams:
            raise WireError(
                Code.AT_CAPACITY,
                f"{len(self.sessions)} of {self.server.max_streams} streams are open, the most allowed (server.max_streams); "
                "close one, or try again later",
            )
        voice = asked.voice or self.default_voice
        if voice not in self.pools:
            raise WireError(Code.UNKNOWN_VOICE, f"there is no voice {voice!r}; known: {', '.join(self.pools)}")
        engine = self.pools[voice].require(now_ns)
        check_format(asked.format, engine.info["format"], voice)
        if "device" in asked.sinks:
            self.speaker.require(now_ns)
        session = engine.streams[asked.stream] = self._session(peer, asked, engine)
        return session

    def _session(self, peer: Peer, asked: wire.Open, engine: Engine) -> Session:
        prefill_ms = asked.prefill_ms if asked.prefill_ms >= 0 else self.default_prefill_ms
        terms = self._terms(engine, prefill_ms if "device" in asked.sinks else 0)
        outside = Outside(
            to_owner=peer.send,
            try_owner=peer.try_send,
            to_engine=engine.send,
            to_speaker=self.speaker.send,
            to_listeners=lambda message: self._to_listeners(asked.stream, message),
            new_key=self._new_key,
            recordings=self.recordings,
        )
        rate_hz: int = engine.info["rate_hz"]
        return Session(asked, engine.voice, rate_hz, int(prefill_ms * rate_hz / 1000), terms, outside)

    def _terms(self, engine: Engine, prefill_ms: float) -> Terms:
        info, chunk_frames = engine.info, self.voices[engine.voice].max_chunk_frames  # as large as overload makes it
        frames_per_ms = info["rate_hz"] / (1000 * info["hop"])
        # With less credit than engine and device wait for, all three would wait for one another for ever.
        cushion_frames = math.ceil((prefill_ms + DEVICE_SLACK_MS) * frames_per_ms)
        needed = info["look_ahead_frames"] + chunk_frames + cushion_frames + CREDIT_STEP_FRAMES
        return Terms(
            hop=info["hop"],
            bins=info["format"]["n_mels"],
            window_frames=max(needed, int(self.server.credit_ms * frames_per_ms)),
            max_frames=self.server.max_utterance_s * info["rate_hz"] // info["hop"],
            history_frames=info["history_frames"],
            lead_frames=info["lead_frames"],
            look_ahead_frames=info["look_ahead_frames"],
            whole_utterance=info["whole_utterance"],
        )

    def _new_key(self, session: Session) -> int:
        for key in [key for key, owner in self.by_key.items() if owner is session]:
            del self.by_key[key]
        self._next_key += 1
        self.by_key[self._next_key] = session
        return self._next_key

    def _to_listeners(self, stream: str, message: Message) -> None:
        for peer in self.peers.values():
            if self.owners.get(stream) is not peer:
                peer.hear(stream, message)

    # ---------------------------------------------------------------- departures

    def drop_session(self, session: Session) -> None:
        """Close a stream and forget it."""
        session.close()
        for key in [key for key, owner in self.by_key.items() if owner is session]:
            del self.by_key[key]
        self.pools[session.voice].forget(session.name)
        self.sessions.pop(session.name, None)
        self.owners.pop(session.name, None)
        for peer in self.peers.values():
            peer.stream_closed(session.name)

    def drop_peer(self, peer: Peer, why: str) -> None:
        """A client is gone: its streams fade out and their places are free."""
        log.info("client %s is dropped: %s", peer.name, why)
        for session in [self.sessions[name] for name, owner in self.owners.items() if owner is peer]:
            self.drop_session(session)
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
        for session in list(self.sessions.values()):
            session.settle()

    def stop(self) -> None:
        """The daemon stops: every running generation gets its ending, every client a word."""
        for session in list(self.sessions.values()):
            if session.begun:
                session.fail(Code.STOPPING, "the daemon is stopping")
        fault = WireError(Code.STOPPING, "the daemon is stopping")
        for peer in self.peers.values():
            peer.send(wire.error_for(fault, fatal=True))


def check_format(asked: dict[str, Any], own: dict[str, Any], voice: str) -> None:
    """Raises WireError if a mel format that a client states is not the voice's, with the keys that differ."""
    different = [key for key, value in asked.items() if key not in own or own[key] != value]
    if different:
        wrong = ", ".join(
            f"{key} = {asked[key]!r} (voice: {own.get(key, 'no such key')!r})" for key in sorted(different)
        )
        raise WireError(Code.WRONG_FORMAT, f"mel format differs from voice {voice!r} in {wrong}; the voice's: {own}")
