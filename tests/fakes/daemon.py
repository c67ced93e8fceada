"""A daemon for tests of clients: speaks the wire protocol over a real ROUTER, keeps its rules, and obeys the test.

Sample i of an utterance has the value i / 2**20, so that a test sees at once which samples arrived.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from glowd.daemon import wire
from glowd.daemon.wire import Code, Message
from tests.harness.waiting import until

HOP, RATE_HZ = 256, 22050
VOICE = {
    "name": "glow", "rate_hz": RATE_HZ, "hop": HOP, "format": {"n_mels": 80}, "look_ahead_frames": 0, "latency_ms": 10.0,
    "whole_utterance": False, "default": True,
}  # fmt: skip


@dataclass
class FakeStream:
    """What the daemon knows of one stream."""

    request: wire.Open
    credit_frames: int
    generation: int = 0
    seq: int = 0
    frames: int = 0
    audio_seq: int = 0

    @property
    def heard_samples(self) -> int:
        """What was heard of the generation before it went on here."""
        return self.request.samples if self.generation == self.request.generation else 0


def position_after(stream: FakeStream) -> wire.Position:
    """That everything was heard, and what is needed to go on: seven frames, and a phase that no other frame has."""
    start = max(0, stream.frames - 5)
    return wire.Position(
        stream.request.stream, stream.generation, 77, stream.frames * HOP, max(0, start - 2), start, start / 8, 9, 3
    )


@dataclass
class FakeDaemon:
    """A thread with a ROUTER. `refuse` may answer a mel with an Error; `auto` grants used credit again at once.

    While `answers` is false it reads and does not answer.
    """

    directory: Path
    version: int = wire.VERSION
    """Of the protocol; before 3 there are no positions."""
    window_frames: int = 64
    max_chunk_frames: int = 16
    auto: bool = True
    answers: bool = True
    opens_without_device: int = 0
    """So many opens are refused, because the sound device is away."""
    knows_rates: bool = True
    """Whether it knows the field open.audio_rate_hz; a daemon of the first release does not."""
    refuse_open: int = 0
    """How many times it says that it is full."""
    refuse_status: Code | None = None
    """Why it tells nobody how it is."""
    refuse_hello: Code | None = None
    """Why it lets no client in."""
    ahead_ns: int = 0
    """By how much its clock is ahead of that of this machine."""
    sounded_ns: list[int] = field(default_factory=list)
    """The times in its positions."""
    refuse: Callable[[wire.Mel], wire.Error | None] = lambda mel: None
    voices: list[dict[str, Any]] = field(default_factory=lambda: [VOICE])
    limits: dict[str, int] = field(default_factory=dict)
    snapshot: dict[str, Any] = field(default_factory=dict)
    received: list[Message] = field(default_factory=list)
    """All but pings, which come at any time."""
    pings: int = 0
    streams: dict[str, FakeStream] = field(default_factory=dict)
    listeners: dict[bytes, set[str]] = field(default_factory=dict)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.endpoint = f"ipc://{self.directory}/fake.ipc"
        self._orders: queue.SimpleQueue[tuple[bytes, list[bytes]]] = queue.SimpleQueue()
        self.owners: dict[str, bytes] = {}
        self._known: set[bytes] = set()
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind(self.endpoint)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> "FakeDaemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.error:
            raise self.error

    def stop(self) -> None:
        """End the thread; the connection closes."""
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def of_type(self, kind: type[Any]) -> list[Any]:
        """The received messages of a type."""
        return [message for message in self.received if isinstance(message, kind)]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds."""
        try:
            until(condition, every_s=0.002)
        except TimeoutError as error:
            raise AssertionError(f"{error}; received: {self.received}") from None

    def send(self, stream: str, message: Message) -> None:
        """Send a message to the owner of a stream, before any answer to what it sends after this."""
        self.send_raw(stream, wire.encode(message))

    def send_raw(self, stream: str, parts: list[bytes]) -> None:
        """As `send`, of bytes."""
        self._orders.put((self.owners[stream], parts))

    def send_to_listeners(self, message: Message) -> None:
        """Send a message to every client that listens."""
        for listener in self.listeners:
            self._orders.put((listener, wire.encode(message)))

    # ---- the thread

    def _serve(self) -> None:
        while not self._stop.is_set():
            arrived = self._router.poll(2)
            while not self._orders.empty():  # a socket is for one thread
                to, parts = self._orders.get()
                self._router.send_multipart([to, *parts])
            if arrived:
                self._receive()

    def _receive(self) -> None:
        peer, *parts = self._router.recv_multipart()
        message = wire.decode(parts)
        if isinstance(message, wire.Hello):
            self._known.add(peer)
        elif peer not in self._known:  # ZeroMQ has connected a client of the daemon before
            self._reply(peer, wire.Error(Code.NO_HELLO, "NO_HELLO", "say hello first", fatal=True))
            return
        if isinstance(message, wire.Ping):
            self.pings += 1
        else:
            self.received.append(message)
        if self.answers:
            try:
                self._answer(peer, message)
            except Exception as error:
                self.error = error

    def _reply(self, peer: bytes, *messages: Message) -> None:
        for message in messages:
            self._router.send_multipart([peer, *wire.encode(message)])

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def _answer(self, peer: bytes, message: Message) -> None:
        match message:
            case wire.Hello() if self.refuse_hello:
                self._reply(peer, wire.Error(self.refuse_hello, self.refuse_hello.name, "no", fatal=True))
            case wire.Hello():
                limits = {"max_chunk_frames": self.max_chunk_frames, **self.limits}
                self._reply(
                    peer,
                    wire.Welcome(
                        self.version,
                        "fake 1",
                        self.voices,
                        ["device", "socket"],
                        limits,
                        message.t_client_ns,
                        self._now_ns(),
                    ),
                )
            case wire.Ping():
                self._reply(peer, wire.Pong(message.t_client_ns, self._now_ns()))
            case wire.Status() if self.refuse_status:
                self._reply(
                    peer, wire.Error(self.refuse_status, self.refuse_status.name, "status needs the role 'metrics'")
                )
            case wire.Status():
                self._reply(peer, wire.State("", "ready", self.snapshot or {"streams": len(self.streams)}))
            case wire.Listen():
                self.listeners.setdefault(peer, set()).add(message.stream)
            case wire.Unlisten():
                self.listeners[peer].discard(message.stream)
            case wire.Open():
                self._open(peer, message)
            case wire.Mel():
                self._mel(peer, self.streams[message.stream], message)
            case wire.End():
                self._end(peer, self.streams[message.stream], message)
            case wire.Flush() | wire.Pause() | wire.Resume() | wire.Gain() if message.stream not in self.streams:
                code, text = Code.UNKNOWN_STREAM, f"there is no stream {message.stream!r}"
                self._reply(peer, wire.Error(code, code.name, text, message.stream))
            case wire.Flush():
                stream = self.streams[message.stream]
                if message.generation != stream.generation:  # it had ended when the client flushed it
                    code = Code.WRONG_GENERATION
                    self._reply(peer, wire.Error(code, code.name, "ended", message.stream, message.generation))
                    return
                self._next(
                    self.owners[message.stream], stream, wire.Flushed(message.stream, message.generation, 99, 1000)
                )
            case wire.Close():
                del self.streams[message.stream]

    def _open(self, peer: bytes, request: wire.Open) -> None:
        if request.voice not in ("", "glow"):
            text = f"no voice {request.voice}; there is: glow"
            self._reply(peer, wire.Error(402, Code.UNKNOWN_VOICE.name, text, request.stream, fatal=True))
            return
        if self.refuse_open > 0:
            self.refuse_open -= 1
            self._reply(peer, wire.Error(400, Code.AT_CAPACITY.name, "full", request.stream, fatal=True))
            return
        if self.opens_without_device:
            self.opens_without_device -= 1
            code, text = Code.SINK_UNAVAILABLE, "no sound device: waiting for it"
            self._reply(peer, wire.Error(code, code.name, text, request.stream, fatal=True))
            return
        credit_frames = self.window_frames + request.samples // HOP - request.first_frame
        self.owners[request.stream] = peer
        self.streams[request.stream] = FakeStream(
            request, credit_frames, request.generation, frames=request.first_frame
        )
        rate_hz = request.audio_rate_hz if self.knows_rates else 0
        self._reply(
            peer,
            wire.Opened(request.stream, "glow", RATE_HZ, HOP, credit_frames, request.generation, rate_hz, 39.9),
        )

    def _mel(self, peer: bytes, stream: FakeStream, mel: wire.Mel) -> None:
        error = self._fault(stream, mel) or self.refuse(mel)
        if error is not None:
            self._reply(peer, error)
            return
        first_sample = stream.frames * HOP
        known = min(mel.frames * HOP, max(0, stream.heard_samples - first_sample))
        stream.seq, stream.frames = stream.seq + 1, stream.frames + mel.frames
        stream.credit_frames -= mel.frames
        if mel.frames * HOP > known:
            self._audio(peer, stream, first_sample + known, mel.frames * HOP - known)
        if self.version >= 3 and stream.request.position_ms and stream.frames * HOP >= stream.heard_samples:
            self.sounded_ns.append(self._now_ns())
            self._reply(peer, replace(position_after(stream), t_ns=self.sounded_ns[-1]))
        if self.auto:
            stream.credit_frames += mel.frames
            self._reply(peer, wire.Credit(mel.stream, mel.generation, mel.frames))

    def _fault(self, stream: FakeStream, mel: wire.Mel) -> wire.Error | None:
        def error(code: Code, text: str) -> wire.Error:
            return wire.Error(code, code.name, text, mel.stream, mel.generation, False, stream.frames)

        if mel.generation != stream.generation:
            return error(Code.WRONG_GENERATION, f"generation {mel.generation}")
        if (mel.seq, mel.first_frame) != (stream.seq, stream.frames):
            return error(Code.GAP, f"seq {mel.seq} frame {mel.first_frame}; wanted {stream.seq}, {stream.frames}")
        if mel.frames > stream.credit_frames:
            return error(Code.OVER_CREDIT, f"{mel.frames} frames; credit {stream.credit_frames}")
        assert mel.frames <= self.max_chunk_frames
        return None

    def _audio(self, peer: bytes, stream: FakeStream, first: int, samples: int, last: bool = False) -> None:
        name, values = stream.request.stream, np.arange(first, first + samples).astype(np.float32) / np.float32(2**20)
        audio = wire.Audio(name, stream.generation, stream.audio_seq, first, samples, last=last, payload=values)
        stream.audio_seq += 1
        if "socket" in stream.request.sinks:
            self._reply(peer, audio)
        for listener, wanted in self.listeners.items():
            if wanted & {"*", name} and listener != peer:
                self._reply(listener, audio)

    def _end(self, peer: bytes, stream: FakeStream, end: wire.End) -> None:
        name = end.stream
        if end.total_frames != stream.frames:
            text = f"end after {end.total_frames} frames; {stream.frames} came"
            self._reply(peer, wire.Error(204, "GAP", text, name, end.generation))
            return
        self._audio(peer, stream, stream.frames * HOP, 0, last=True)
        self._next(peer, stream, wire.Played(name, end.generation, stream.frames * HOP, 0))

    def _next(self, peer: bytes, stream: FakeStream, ending: Message) -> None:
        stream.generation, stream.seq, stream.frames, stream.audio_seq = stream.generation + 1, 0, 0, 0
        stream.credit_frames = self.window_frames
        name = stream.request.stream
        self._reply(peer, ending, wire.Credit(name, stream.generation, self.window_frames))
        for listener, wanted in self.listeners.items():
            if wanted & {"*", name} and listener != peer:
                self._reply(listener, ending)


def refuse_once(number: int, code: Code) -> Callable[[wire.Mel], wire.Error | None]:
    """For FakeDaemon.refuse: rejects the `number`-th mel that arrives."""
    seen: list[wire.Mel] = []

    def refuse(message: wire.Mel) -> wire.Error | None:
        seen.append(message)
        if len(seen) != number:
            return None
        return wire.Error(code, code.name, "no", message.stream, message.generation, False, message.first_frame)

    return refuse
