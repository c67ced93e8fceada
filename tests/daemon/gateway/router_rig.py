"""A desk with two voices behind it, clients that are lists of messages, and no socket."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from glowd.daemon import ipc, wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.handles import Engine, Speaker
from glowd.daemon.gateway.placement import Machine, Pool
from glowd.daemon.gateway.router import Desk
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import VoiceInfo

HOP, BINS, RATE = 256, 80, 22_050
FORMAT = {"rate_hz": RATE, "hop": HOP, "n_mels": BINS, "fmax_hz": 8000.0}
VOICES = 'voices={glow={engine="waveglow",default=true,chunk_frames=4},slow={engine="griffinlim"}}'
START_NS = 1_000_000_000_000
M = TypeVar("M", bound=Message)


class Hall:
    """A desk with two voices; `glow` is the default one, `slow` has no engine yet."""

    def __init__(self, *settings: str, device: bool = True) -> None:
        config = load(None, [VOICES, *settings])
        self.now_ns, self.lives = START_NS, 0
        self.to_engine, self.to_speaker = list[Message](), list[Message]()
        wait_s = config.server.role_wait_s
        self.engines = {name: Engine(name, name, by_wire(self.to_engine), wait_s) for name in config.voices}
        machine = Machine(list(self.engines.values()), cores=2)
        pools = {name: Pool(name, [engine], machine) for name, engine in self.engines.items()}
        self.speaker = Speaker(by_wire(self.to_speaker), True, wait_s)
        self.mail: dict[bytes, list[Message]] = {}
        self.deaf, self.gone = set[bytes](), set[bytes]()
        self.desk = Desk(config, pools, self.speaker, self._try_send)
        self.ready("glow")
        if device:
            self.speaker.handle(ipc.DeviceReady("card", 48_000, 20.0, 1), [], self.now_ns)
        self.to_engine.clear()
        self.to_speaker.clear()

    def _try_send(self, identity: bytes, parts: list[bytes]) -> bool | None:
        if identity in self.gone:
            return None
        if identity not in self.deaf:
            self.mail.setdefault(identity, []).append(wire.decode(parts, wire.CLIENT_LIMITS))
        return identity not in self.deaf

    def ready(self, voice: str, **changes: Any) -> None:
        """The engine of a voice says that it is there, in a new life."""
        self.lives += 1
        info = voice_info(voice, **changes)
        self.engines[voice].handle(ipc.Ready(voice, info, self.lives), self.now_ns)

    def say(self, who: bytes, *messages: Message) -> list[Message]:
        """A client's messages, and all that it is told at once."""
        return [answer for message in messages for answer in self.say_parts(who, wire.encode(message))]

    def say_parts(self, who: bytes, parts: list[bytes]) -> list[Message]:
        """As `say`, of bytes."""
        before = len(self.mail.get(who, []))
        self.desk.handle(who, parts, self.now_ns)
        return self.mail.get(who, [])[before:]

    def hello(self, *names: bytes) -> None:
        for who in names:
            (welcome,) = self.say(who, wire.Hello(who.decode()))
            assert isinstance(welcome, wire.Welcome)

    def open(self, who: bytes, stream: str, *sinks: str, **asked: Any) -> wire.Opened:
        (opened,) = self.say(who, wire.Open(stream, sinks=list(sinks) or ["null"], **asked))
        assert isinstance(opened, wire.Opened), opened
        return opened

    def refused(self, who: bytes, message: Message | list[bytes], fatal: bool = False) -> wire.Error:
        """The error that a message is answered with, and nothing else."""
        (error,) = self.say_parts(who, message if isinstance(message, list) else wire.encode(message))
        assert isinstance(error, wire.Error) and error.fatal == fatal, error
        assert error.name == Code(error.code).name
        return error

    def tick(self, seconds: float = 0.0) -> None:
        self.now_ns += int(seconds * 1e9)
        self.desk.tick(self.now_ns)

    def said(self, who: bytes, kind: type[M]) -> list[M]:
        return [message for message in self.mail.get(who, []) if isinstance(message, kind)]


def voice_info(name: str = "glow", **changes: Any) -> VoiceInfo:
    """What an engine says of its voice."""
    info = VoiceInfo(
        name=name, rate_hz=RATE, hop=HOP, format=FORMAT, look_ahead_frames=0, latency_ms=1.0, whole_utterance=False,
        default=name == "glow", history_frames=4,
    )  # fmt: skip
    return dataclasses.replace(info, **changes)


def by_wire(where: list[Message]) -> Callable[[Message], bool]:
    """Keeps messages to a role as the role will read them."""

    def send(message: Message) -> bool:
        where.append(ipc.decode(ipc.encode(message)))
        return True

    return send


def mel(stream: str, seq: int = 0, first: int = 0, frames: int = 4, generation: int = 0) -> wire.Mel:
    return wire.mel_message(stream, generation, seq, first, np.full((frames, BINS), -3, np.float32))


def bad_mel(stream: str, seq: int, first: int, value: float) -> list[bytes]:
    """What wire.encode would refuse to send."""
    header, _ = wire.encode(mel(stream, seq, first))
    return [header, np.full((4, BINS), value, "<f4").tobytes()]
