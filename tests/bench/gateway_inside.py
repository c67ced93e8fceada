"""What the gateway does in Python for each chunk: its own objects in this process; no socket is read or written.

On a busy machine the figures of gateway.py say more of the machine than of the gateway. Here only the time of this thread counts,
in rounds of some milliseconds, so the least of them is that of a core that nobody disturbs.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack

from glowd.clients.kept import POSITION_MS
from glowd.daemon import ipc, wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway.process import GARBAGE_AFTER, Gateway
from glowd.daemon.runtime.role import Role
from glowd.daemon.runtime.sockets import Sender
from tests.bench.gateway_peers import answer_to, engine_ready, samples_of
from tests.bench.report import Result, cpu_name, percentiles_ms
from tests.fakes.roles import BINS, HOP, RATE
from tests.harness.mels import speech

CLIENT_STREAMS = 16
"""Of each client."""


class Inside:
    """The gateway, its streams, and the bytes that client and engine would send."""

    def __init__(self, run_dir: Path, streams: int, chunk_frames: int) -> None:
        most = (f"server.{name}={streams}" for name in ("max_streams", "max_peer_streams"))
        settings = ["voices={glow={engine='waveglow'}}", f"files.directory={run_dir}", *most]
        settings.append("server.max_peer_messages_s=1000000")
        self.gateway = Gateway(Role("gateway", load(None, settings), run_dir, ""))
        self._outgoing = self.gateway.to_engines, self.gateway.to_clients  # never flushed
        self._frames, self._mel, self._samples, self._round = chunk_frames, speech().tobytes(), samples_of(512), 0
        self._clients = [b"client %d" % (number // CLIENT_STREAMS) for number in range(streams)]
        self._from_engine(ipc.encode(engine_ready()))
        for client in dict.fromkeys(self._clients):
            self._from_client(client, wire.encode(wire.Hello("bench", max_version=wire.VERSION)))
        for number, client in enumerate(self._clients):
            asked = wire.Open(f"s{number}", sinks=["socket"], position_ms=POSITION_MS)
            self._from_client(client, wire.encode(asked))

    def _from_client(self, client: bytes, parts: list[bytes]) -> None:
        now_ns = self.gateway._clock.now_ns()
        self.gateway.router.handle(client, parts, now_ns, None, lambda: Sender("localhost:1:1:1"))

    def _from_engine(self, parts: list[bytes]) -> None:
        self.gateway._inbox.from_engine(b"engine:glow", parts)

    def chunk_s(self) -> float:
        """Processor time for one chunk, of a round with one of each stream."""
        mels = [self._mel_parts(number) for number in range(len(self._clients))]
        self._round += 1
        for outgoing in self._outgoing:
            outgoing.waiting.clear()
        began_s = time.thread_time()
        for client, parts in zip(self._clients, mels):
            self._from_client(client, parts)
        used_s = time.thread_time() - began_s
        queues = self.gateway.to_engines.waiting.values()
        frames = [msgpack.unpackb(parts[0]) for queue in queues for parts in queue if len(parts) == 2]
        assert len(frames) == len(mels), "a chunk was refused"
        answers = [list(answer_to(one, self._samples)) for one in frames]
        began_s = time.thread_time()
        for parts in answers:
            self._from_engine(parts)
        return (used_s + time.thread_time() - began_s) / len(mels)

    def _mel_parts(self, number: int) -> list[bytes]:
        size, frames = self._frames * BINS * 4, self._frames
        at = self._round * size % (len(self._mel) - size)
        header = {
            "type": "mel", "stream": f"s{number}", "generation": 0, "seq": self._round, "first_frame": self._round * frames,
            "frames": frames, "dtype": "f32", "bins": BINS, "t_client_ns": time.monotonic_ns(),
        }  # fmt: skip
        return [msgpack.packb(header), self._mel[at : at + size]]


def inside(seconds: float, streams: int = 64, chunk_frames: int = 4) -> Iterator[Result]:
    """Processor time for a chunk, the least and the median of the rounds of `seconds`."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        made = Inside(Path(name), streams, chunk_frames)
        for _ in range(20):
            made.chunk_s()
        gc.collect()
        gc.freeze()
        before = gc.get_threshold()
        gc.set_threshold(GARBAGE_AFTER)
        until_s, times_s = time.monotonic() + seconds, list[float]()
        while time.monotonic() < until_s:
            times_s.append(made.chunk_s())
        gc.set_threshold(*before)
        gc.unfreeze()
        made.gateway.close()
    settings = {"streams": streams, "chunk_frames": chunk_frames, "seconds": seconds, "sockets": False}
    least_ms, spread = 1000 * min(times_s), percentiles_ms(times_s)
    beside = {"p50": spread["p50"], "rounds": len(times_s), "ms for a second": least_ms * RATE / HOP / chunk_frames}
    yield Result("gateway: Python for a chunk, at least", 1000 * least_ms, "us", cpu_name(), settings, "", beside)
