"""A speaker as a process, or its playback loop alone, and the gateway's end of its link."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import zmq

from glowd.daemon import ipc
from glowd.daemon.runtime.sockets import connect_speaker
from glowd.daemon.speaker.device_thread import DeviceThread
from glowd.daemon.speaker.link import GatewayLink
from glowd.daemon.speaker.playback import Playback
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.wire.fields import Message
from tests.fakes.output import FakeOutput
from tests.harness.signals import RATE
from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[2]
BLOCK, BLOCK_MS = 220, 10.0
M = TypeVar("M", bound=Message)


class SpeakerHarness:
    """Talks to a speaker process as the gateway does, and keeps what it sent."""

    def __init__(self, process: "subprocess.Popen[str]", socket: "zmq.Socket[bytes]") -> None:
        self.process, self.socket = process, socket
        self.received: list[tuple[int, Message]] = []  # (when it arrived, ns; the message)
        self.status: dict[str, Any] = {}

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.socket.send_multipart([b"speaker", *ipc.encode(message)])

    def listen(self, seconds: float = 0.0) -> None:
        """Receive for `seconds`."""
        until_s = time.monotonic() + seconds
        while self.socket.poll(max(0, round(1000 * (until_s - time.monotonic())))):
            self.received.append((time.monotonic_ns(), ipc.decode(self.socket.recv_multipart()[1:])))

    def all(self, kind: type[M], key: int | None = None) -> list[M]:
        return [m for _, m in self.received if isinstance(m, kind) and key in (None, getattr(m, "key", None))]

    def wait(self, kind: type[M], key: int | None = None, count: int = 1, timeout_s: float = WAIT_S) -> M:
        """The `count`th message of a kind since the last `forget`; waits for it."""
        until_s = time.monotonic() + timeout_s
        while len(found := self.all(kind, key)) < count:
            if time.monotonic() > until_s:
                raise TimeoutError(
                    f"no {kind.__name__} in {timeout_s:g} s; the last messages were {self.received[-5:]}"
                )
            self.listen(0.01)
        return found[count - 1]

    def arrival_ns(self, message: Message) -> int:
        return next(t_ns for t_ns, received in self.received if received is message)

    def forget(self) -> None:
        self.listen()
        self.received.clear()

    def play(self, streams: Mapping[int, Samples], chunk: int = 1024, lead_s: float = 1.5, end: bool = True) -> None:
        """Send attached streams in chunks, as an engine would: `lead_s` ahead of real time."""
        began_s, longest = time.monotonic(), max(map(len, streams.values()))
        for first in range(0, longest, chunk):
            self.listen(max(0.0, first / RATE - lead_s - (time.monotonic() - began_s)))
            for key, samples in streams.items():
                if first < len(samples):
                    self.send(pcm(key, first, samples[first : first + chunk], end and first + chunk >= len(samples)))

    def rss_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def pcm(key: int, first: int, samples: Samples, last: bool = False) -> ipc.Pcm:
    return ipc.Pcm(key=key, first_sample=first, samples=len(samples), last=last, audio=samples)


@contextmanager
def speaker(env: dict[str, str], *settings: str) -> Iterator[SpeakerHarness]:
    """A speaker process that has reported ready; `settings` as in --set."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    with tempfile.TemporaryDirectory(prefix="glowd-") as run_dir, socket:
        socket.linger, socket.router_mandatory = 0, 1
        socket.bind(f"ipc://{run_dir}/speaker.ipc")
        command = [sys.executable, "-m", "glowd.daemon.speaker", "--run-dir", run_dir]
        command += [part for setting in settings for part in ("--set", setting)]
        with subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            harness = SpeakerHarness(process, socket)
            try:
                assert process.stdout
                harness.wait(ipc.Load)
                harness.send(ipc.OutputRate(rate_hz=RATE))
                while harness.status.keys() <= {"alive"}:
                    harness.status = json.loads(process.stdout.readline())
                yield harness
            finally:
                process.kill()


class PlaybackHarness:
    """A Playback in this process, with a FakeOutput for its device and a socket in place of the gateway's."""

    def __init__(self, run_dir: Path) -> None:
        self.output = FakeOutput(latency_ms=80)
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"ipc://{run_dir}/speaker.ipc")
        self.thread = DeviceThread(self.output, BLOCK_MS)
        self.link = GatewayLink(connect_speaker(f"ipc://{run_dir}/speaker.ipc"))
        self.playback = Playback(self.link, self.thread, instance=1)
        self.received: list[Message] = []
        self.thread.prefer(RATE)
        self.thread.start()

    def until(self, true: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        """Step until `true()`."""
        until_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until_s, f"not in {timeout_s} s; received: {self.received[-5:]}"
            self.playback.step()
            while self.socket.poll(0):
                self.received.append(ipc.decode(self.socket.recv_multipart()[1:]))

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.socket.send_multipart([b"speaker", *ipc.encode(message)])

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]

    def close(self) -> None:
        self.output.hang = False
        assert self.thread.stop(WAIT_S)
        self.link.socket.close()
        self.socket.close()
