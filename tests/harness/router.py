"""A client router with two voices behind it, clients that are lists of messages, and no socket."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.clients.visitors import Visitors
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.draining import Draining
from glowd.daemon.gateway.placement.progress import Progress
from glowd.daemon.gateway.placement.registry import StreamRegistry
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.gateway.router import ClientRouter
from glowd.daemon.gateway.snapshot import SnapshotTaker
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import VoiceInfo

HOP, BINS, RATE = 256, 80, 22_050
FORMAT = {"rate_hz": RATE, "hop": HOP, "n_mels": BINS, "fmax_hz": 8000.0}
VOICES = 'voices={glow={engine="waveglow",default=true,chunk_frames=4},slow={engine="griffinlim"}}'
START_NS = 1_000_000_000_000
M = TypeVar("M", bound=Message)


class RouterHarness:
    """A router with two voices: `glow`, the default, and `slow`, whose engine is not alive yet."""

    def __init__(self, *settings: str, device: bool = True) -> None:
        config = load(None, [VOICES, *settings])
        self.now_ns, self.instance, wait_s = START_NS, 0, config.server.role_wait_s
        self.to_engine, self.to_speaker = list[Message](), list[Message]()
        self.speaker = SpeakerHandle(decoded_into(self.to_speaker), True, wait_s)
        self.mail: dict[bytes, list[Message]] = {}
        self.addresses: dict[bytes, str] = {}
        self.not_reading, self.gone = set[bytes](), set[bytes]()
        clients: dict[bytes, ClientConnection] = {}
        self.streams = StreamRegistry(clients, self.speaker, Recordings(config.files))
        to_engine = decoded_into(self.to_engine)
        self.roster = Roster(
            config, lambda spec: EngineHandle(spec.name, spec.voice, to_engine, wait_s), self.streams, cores=2
        )
        self.engines, pools = self.roster.engines, self.roster.pools
        self.progress, draining = Progress(self.streams), Draining(self.streams)
        self.snapshots = SnapshotTaker(
            config, clients, self.streams, draining, self.progress, pools, self.engines, self.speaker,
            threading.Event(), lambda: self.now_ns,
        )  # fmt: skip
        self.visitors = Visitors()
        self.router = ClientRouter(
            config, clients, self.streams, pools, self.speaker, self._try_send, self.snapshots.take, self.visitors,
            draining,
        )  # fmt: skip
        self.engine_ready("glow")
        if device:
            self.from_speaker(ipc.DeviceReady("card", 48_000, 20.0, 1))
        self.to_engine.clear()
        self.to_speaker.clear()

    def _try_send(self, identity: bytes, parts: list[bytes]) -> bool:
        if identity in self.gone:
            self.router.gone(identity)
            return True
        if identity not in self.not_reading:
            self.mail.setdefault(identity, []).append(wire.decode(parts, wire.CLIENT_LIMITS))
        return identity not in self.not_reading

    # ----------------------------------------------------------- behind the router

    def engine_ready(self, voice: str, **changes: Any) -> None:
        """The engine of a voice has started, or was restarted."""
        self.instance += 1
        self.from_engine(voice, ipc.Ready(voice, voice_info(voice, **changes), self.instance))

    def from_engine(self, voice: str, message: Message) -> None:
        engine = self.engines[voice]
        engine.handle(message, [stream.session for stream in self.streams.placed_in(engine)], self.now_ns)

    def from_speaker(self, message: Message) -> None:
        self.speaker.handle(message, [stream.session for stream in self.streams], self.now_ns)

    # ------------------------------------------------------------------- clients

    def send(self, who: bytes, *messages: Message) -> list[Message]:
        """Messages of a client; returns what it is sent in answer."""
        return [answer for message in messages for answer in self.send_parts(who, wire.encode(message))]

    def send_parts(self, who: bytes, parts: list[bytes]) -> list[Message]:
        """As `send`, with bytes."""
        before = len(self.mail.get(who, []))
        self.router.handle(who, parts, self.now_ns, sender=lambda: Sender(self.addresses.get(who, "")))
        return self.mail.get(who, [])[before:]

    def connect(self, *names: bytes) -> None:
        for who in names:
            (welcome,) = self.send(who, wire.Hello(who.decode()))
            assert isinstance(welcome, wire.Welcome)

    def open(self, who: bytes, stream: str, *sinks: str, **asked: Any) -> wire.Opened:
        (opened,) = self.send(who, wire.Open(stream, sinks=list(sinks) or ["null"], **asked))
        assert isinstance(opened, wire.Opened), opened
        return opened

    def refused(self, who: bytes, message: Message | list[bytes], fatal: bool = False) -> wire.Error:
        """The error that answers a message, and nothing else."""
        (error,) = self.send_parts(who, message if isinstance(message, list) else wire.encode(message))
        assert isinstance(error, wire.Error) and error.fatal == fatal, error
        assert error.name == Code(error.code).name
        return error

    def received(self, who: bytes, kind: type[M]) -> list[M]:
        """Everything of a type that a client was sent."""
        return [message for message in self.mail.get(who, []) if isinstance(message, kind)]

    # ---------------------------------------------------------------------- state

    def tick(self, seconds: float = 0.0) -> None:
        self.now_ns += int(seconds * 1e9)
        self.router.tick(self.now_ns)

    def session(self, name: str) -> Session:
        stream = self.streams.find(name)
        assert stream is not None, f"there is no stream {name}"
        return stream.session

    @property
    def stream_names(self) -> set[str]:
        return {stream.name for stream in self.streams}

    @property
    def clients(self) -> set[bytes]:
        return set(self.router.clients)


def voice_info(name: str = "glow", **changes: Any) -> VoiceInfo:
    """What an engine reports of its voice."""
    info = VoiceInfo(
        name=name, rate_hz=RATE, hop=HOP, format=FORMAT, look_ahead_frames=0, latency_ms=1.0, whole_utterance=False,
        default=name == "glow", history_frames=4, lead_frames=0,
    )  # fmt: skip
    return dataclasses.replace(info, **changes)


def decoded_into(where: list[Message]) -> Callable[[Message], bool]:
    """A `send` that keeps messages as their receiver will decode them."""

    def send(message: Message) -> bool:
        where.append(ipc.decode(ipc.encode(message)))
        return True

    return send


def mel_message(stream: str, seq: int = 0, first: int = 0, frames: int = 4, generation: int = 0) -> wire.Mel:
    return wire.mel_message(stream, generation, seq, first, np.full((frames, BINS), -3, np.float32))


def invalid_mel(stream: str, seq: int, first: int, value: float) -> list[bytes]:
    """A mel that wire.encode would refuse to send."""
    header, _ = wire.encode(mel_message(stream, seq, first))
    return [header, np.full((4, BINS), value, "<f4").tobytes()]
