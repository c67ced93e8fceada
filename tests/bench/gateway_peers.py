"""The fakes around a gateway that is measured alone: an engine, and clients that send at the pace of speech. No torch.

    python -m tests.bench.gateway_peers engine RUN_DIR
    python -m tests.bench.gateway_peers clients ENDPOINTS STREAMS STREAMS_PER_CLIENT CHUNK_FRAMES SINK SECONDS

ENDPOINTS: those of one gateway or, with commas between them, of several, which the clients share.

Rules: they write and read msgpack themselves, with as few checks as possible, so that the gateway is busy and they are not.
The clients print lines of JSON: `{"begun": true}` when all streams run at their pace, and what they have seen SECONDS later.
"""

import contextlib
import heapq
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from glowd.clients.kept import POSITION_MS
from glowd.daemon import ipc, wire
from glowd.daemon.runtime import sockets
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.telemetry import VoiceInfo
from tests.fakes.roles import BINS, FORMAT, HOP, RATE
from tests.harness.mels import speech

FRAME_S = HOP / RATE
BEGIN_S = 1.5
"""Within which they begin: what the gateway does once in 128 frames of a stream is else due for all in the same moment."""
SETTLE_S = 4.0
"""After the streams have begun, until they are measured: their first seconds take longer."""
HELLO_S = 0.5


# --------------------------------------------------------------------- the engine


def engine(run_dir: Path) -> None:
    """Answer frames with their samples at once, whatever they are, until the process is ended."""
    socket = sockets.connect_engine(f"ipc://{run_dir}/engine.ipc", "glow")
    ready, samples, hello_s = ipc.encode(engine_ready()), samples_of(512), 0.0
    while True:
        if time.monotonic() - hello_s > HELLO_S:
            hello_s = time.monotonic()
            socket.send_multipart(ready)
        socket.poll(100)
        with contextlib.suppress(zmq.Again):
            for _ in range(64):
                header, *payload = socket.recv_multipart(zmq.NOBLOCK)
                if payload:
                    socket.send_multipart(answer_to(msgpack.unpackb(header), samples))


def engine_ready() -> ipc.Ready:
    """What an engine says of itself, without a limit to its streams."""
    info = VoiceInfo(
        name="glow", rate_hz=RATE, hop=HOP, format=FORMAT, look_ahead_frames=0, latency_ms=0.0, whole_utterance=False,
        default=True, history_frames=4, lead_frames=2,
    )  # fmt: skip
    return ipc.Ready(voice="glow", info=info, instance=1)


def samples_of(frames: int) -> bytes:
    """Samples of so many frames, whatever the frames are."""
    return np.random.default_rng(0).normal(0, 0.1, frames * HOP).astype(np.float32).tobytes()


def answer_to(frames: dict[str, Any], samples: bytes) -> tuple[bytes, bytes]:
    """The parts of the message with the samples of frames, of which this is the header."""
    now_ns, count = time.monotonic_ns(), frames["frames"] * HOP
    header = {
        "type": "pcm", "key": frames["key"], "first_sample": frames["first_frame"] * HOP, "samples": count, "last": False,
        "frames_done": frames["first_frame"] + frames["frames"], "t_client_ns": frames["t_client_ns"],
        "t_gateway_ns": frames["t_gateway_ns"], "t_engine_ns": now_ns, "t_due_ns": frames["t_gateway_ns"],
        "t_start_ns": now_ns, "t_end_ns": now_ns, "batch": 1, "phase": 0.0, "peak": 0.0, "silenced": False,
    }  # fmt: skip
    return msgpack.packb(header), samples[: 4 * count]


# -------------------------------------------------------------------- the clients


@dataclass(frozen=True, slots=True)
class Plan:
    """What the clients do."""

    endpoints: tuple[str, ...]
    streams: int
    streams_per_client: int
    chunk_frames: int
    sink: str
    seconds: float


@dataclass(slots=True)
class Speaking:
    """One stream: what it has sent, and how many samples its sink has taken."""

    name: str
    socket: zmq.Socket[bytes]
    credit: int = 0
    frames: int = 0
    seq: int = 0
    delivered_samples: int = 0


@dataclass(slots=True)
class Seen:
    """What the clients have seen. Times in ns: from sending frames until the engine had them, and from the engine back."""

    frames_due: int = 0
    delivered_samples: int = 0
    errors: list[str] = field(default_factory=list)
    to_engine_ns: list[int] = field(default_factory=list)
    from_engine_ns: list[int] = field(default_factory=list)


class Clients:
    """All clients, in one thread."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.seen = plan, Seen()
        self._poller, self._streams = zmq.Poller(), dict[str, Speaking]()
        self._mel = speech().tobytes()
        self._chunk_bytes = plan.chunk_frames * BINS * 4
        self._queue: list[tuple[float, int, Speaking]] = []
        """What is due: when, the number of a stream, and the stream."""

    def run(self) -> Seen:
        """Open the streams, send for a while, and return what was seen in its last part."""
        self._open()
        period_s = self.plan.chunk_frames * FRAME_S
        begin_s = time.monotonic() + 0.1
        periods, count = math.ceil(BEGIN_S / period_s), len(self._streams)
        for number, stream in enumerate(self._streams.values()):
            self._queue.append((begin_s + period_s * (number / count + number % periods), number, stream))
        heapq.heapify(self._queue)
        self._speak(begin_s + BEGIN_S + SETTLE_S)
        self.seen = Seen()
        print(json.dumps({"begun": True}), flush=True)
        self._speak(begin_s + BEGIN_S + SETTLE_S + self.plan.seconds)
        return self.seen

    def _open(self) -> None:
        for first in range(0, self.plan.streams, self.plan.streams_per_client):
            socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            socket.linger, socket.rcvhwm, socket.sndhwm = 0, 0, 0
            socket.connect(self.plan.endpoints[first // self.plan.streams_per_client % len(self.plan.endpoints)])
            self._poller.register(socket, zmq.POLLIN)
            messages: list[Message] = [wire.Hello(f"bench-{first}", max_version=wire.VERSION)]
            for number in range(first, min(first + self.plan.streams_per_client, self.plan.streams)):
                name = f"s{number}"
                self._streams[name] = Speaking(name, socket)
                messages.append(wire.Open(name, sinks=[self.plan.sink], position_ms=POSITION_MS))
            for message in messages:
                socket.send_multipart(wire.encode(message))
        until_s = time.monotonic() + 60
        while not all(one.credit for one in self._streams.values()):
            self._read(100)
            if time.monotonic() > until_s or self.seen.errors:
                raise RuntimeError(f"the streams were not opened: {self.seen.errors[:3]}")

    def _speak(self, until_s: float) -> None:
        """Send what falls due and read what comes, until a time.

        It waits for whole milliseconds: a client that asks again and again would take the processor from the gateway.
        """
        period_s = self.plan.chunk_frames * FRAME_S
        while (now_s := time.monotonic()) < until_s:
            while self._queue[0][0] <= now_s:
                due_s, number, stream = self._queue[0]
                self._send(stream)
                heapq.heapreplace(self._queue, (due_s + period_s, number, stream))
            self._read(math.ceil(1000 * max(0.0, self._queue[0][0] - time.monotonic())))

    def _send(self, stream: Speaking) -> None:
        frames = self.plan.chunk_frames
        self.seen.frames_due += frames
        if stream.credit < frames:
            return
        at = stream.frames * BINS * 4 % (len(self._mel) - self._chunk_bytes)
        header = {
            "type": "mel", "stream": stream.name, "generation": 0, "seq": stream.seq, "first_frame": stream.frames,
            "frames": frames, "dtype": "f32", "bins": BINS, "t_client_ns": time.monotonic_ns(),
        }  # fmt: skip
        stream.socket.send_multipart([msgpack.packb(header), self._mel[at : at + self._chunk_bytes]])
        stream.credit, stream.frames, stream.seq = stream.credit - frames, stream.frames + frames, stream.seq + 1

    def _read(self, timeout_ms: int) -> None:
        for socket, _ in self._poller.poll(timeout_ms):
            with contextlib.suppress(zmq.Again):
                for _ in range(64):
                    self._take(socket.recv_multipart(zmq.NOBLOCK)[0])

    def _take(self, packed: bytes) -> None:
        header, seen = msgpack.unpackb(packed), self.seen
        match header["type"]:
            case "audio":
                stamps = header["stamps"]
                seen.to_engine_ns.append(stamps["engine_in"] - stamps["client"])
                seen.from_engine_ns.append(time.monotonic_ns() - stamps["net_end"])
            case "position":
                stream = self._streams[header["stream"]]
                seen.delivered_samples += header["samples"] - stream.delivered_samples
                stream.delivered_samples = header["samples"]
            case "credit":
                self._streams[header["stream"]].credit += header["frames"]
            case "opened":
                self._streams[header["stream"]].credit = header["credit_frames"]
            case "error":
                seen.errors.append(header["text"])


def main(argv: list[str]) -> None:
    """Be one of the two."""
    if argv[0] == "engine":
        engine(Path(argv[1]))
    else:
        endpoints, streams, streams_per_client, chunk_frames, sink, seconds = argv[1:]
        plan = Plan(
            tuple(endpoints.split(",")), int(streams), int(streams_per_client), int(chunk_frames), sink, float(seconds)
        )
        print(json.dumps(asdict(Clients(plan).run())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
