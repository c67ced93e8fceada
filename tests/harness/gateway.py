"""A gateway process between a fake engine and a fake speaker, and clients that use the wire protocol directly."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import zmq

from glowd.daemon import wire
from glowd.daemon.wire import Code
from glowd.daemon.wire.fields import Array, Message
from glowd.daemon.wire.telemetry import Snapshot
from tests.fakes.roles import HOP, FakeEngine, FakeSpeaker, rendered
from tests.harness.waiting import WAIT_S

ROOT = Path(__file__).parents[2]
M = TypeVar("M", bound=Message)


class RawClient:
    """A DEALER socket that may send anything. `received` keeps everything that arrived."""

    alive: ClassVar[set["RawClient"]] = set()
    """Those that were not closed because a test failed; their contexts would block the end of Python."""

    def __init__(self, endpoint: str, name: str = "raw", greet: bool = True, queue: int = 1000) -> None:
        self.alive.add(self)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.socket.linger, self.socket.rcvhwm = 200, queue
        self.socket.connect(endpoint)
        self.received: list[Message] = []
        if greet:
            self.send(wire.Hello(name))
            self.welcome = self.expect(wire.Welcome)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.socket.send_multipart(wire.encode(message))

    def send_parts(self, *parts: bytes) -> None:
        self.socket.send_multipart(list(parts))

    def next(self, timeout_s: float = WAIT_S) -> Message | None:
        """The next message, None if none comes."""
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        message = wire.decode(self.socket.recv_multipart(), wire.CLIENT_LIMITS)
        self.received.append(message)
        return message

    def expect(self, kind: type[M], timeout_s: float = WAIT_S) -> M:
        """The next message of a type; others are skipped."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            message = self.next(left_s)
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came; these did: {[one.TYPE for one in self.received]}")

    def expect_error(self, code: Code, fatal: bool = False) -> wire.Error:
        error = self.expect(wire.Error)
        assert (error.code, error.name, error.fatal) == (code, code.name, fatal), error
        return error

    def sync(self) -> None:
        """Wait until the gateway has handled everything that was sent."""
        self.send(wire.Ping(7))
        while not self.expect(wire.Pong).t_client_ns:
            pass

    def open(self, stream: str, *sinks: str, **asked: Any) -> wire.Opened:
        self.send(wire.Open(stream, sinks=list(sinks) or ["socket"], **asked))
        return self.expect(wire.Opened)

    def status(self) -> Snapshot:
        self.send(wire.Status())
        while (state := self.expect(wire.State)).stream:
            pass
        return Snapshot.from_map(state.info)

    def audio(self) -> Array:
        """All audio that arrived."""
        chunks = [message.payload for message in self.received if isinstance(message, wire.Audio)]
        return np.concatenate([np.zeros(0, np.float32), *chunks])

    def errors(self) -> list[wire.Error]:
        return [message for message in self.received if isinstance(message, wire.Error)]

    def leave(self) -> None:
        """Send bye, and wait until the gateway has handled it."""
        self.send(wire.Bye(), wire.Ping(1))  # a client that has left must say hello again
        while self.expect(wire.Error).code != Code.NO_HELLO:
            pass
        self.kill()

    def kill(self) -> None:
        """Disconnect without a message."""
        self.alive.discard(self)
        self.socket.close(0)
        self._context.term()


def mel_messages(stream: str, mel: Array, chunk: int, generation: int = 0) -> list[Message]:
    """The frames of an utterance as messages."""
    return [
        wire.mel_message(stream, generation, i, at, mel[at : at + chunk], t_client_ns=time.monotonic_ns())
        for i, at in enumerate(range(0, len(mel), chunk))
    ]


class UtteranceClient:
    """A client in a thread that sends one utterance within its credit, and checks that every sample arrives once.

    With `go`, the second half is sent only once that is set.
    """

    running: ClassVar[set["UtteranceClient"]] = set()
    """Those that were not checked because a test failed."""

    def __init__(
        self, endpoint: str, stream: str, mel: Array, chunk: int = 4, seed: int = 0, pace_s: float = 0.0,
        go: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.go = go
        self.client, self.stream, self.mel, self.seed, self.pace_s = RawClient(endpoint), stream, mel, seed, pace_s
        self.credit = self.client.open(stream, "socket", seed=seed).credit_frames
        self.chunks: list[Array] = []
        self.samples = 0
        self.ending: Message | None = None
        self.errors: list[wire.Error] = []
        self.latencies_ns: list[int] = []
        self.gateway_ns: list[int] = []
        """The gateway's part of these: from client to gateway, and from the engine's answer to passing it on."""
        self._todo = deque((at, mel[at : at + chunk]) for at in range(0, len(mel), chunk))
        self._seq = 0
        self._over = threading.Event()
        self.running.add(self)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due_s = time.monotonic()
        give_up_s = due_s + 5 * WAIT_S
        while self.ending is None and time.monotonic() < give_up_s and not self._over.is_set():
            while self._todo and self._may_send(*self._todo[0]) and time.monotonic() >= due_s:
                self._send(*self._todo.popleft())
                due_s = max(due_s + self.pace_s, time.monotonic() - 0.1)
            wait_s = min(0.02, due_s - time.monotonic()) if self._todo else 0.02
            self._read(self.client.next(max(0.001, wait_s)))

    def _may_send(self, at: int, frames: Array) -> bool:
        held = self.go is not None and not self.go.is_set() and at >= len(self.mel) // 2
        return len(frames) <= self.credit and not held

    def _send(self, at: int, frames: Array) -> None:
        now_ns = time.monotonic_ns()
        self.client.send(wire.mel_message(self.stream, 0, self._seq, at, frames, t_client_ns=now_ns))
        self._seq, self.credit = self._seq + 1, self.credit - len(frames)
        if not self._todo:
            self.client.send(wire.End(self.stream, 0, len(self.mel)))

    def _read(self, message: Message | None) -> None:
        match message:
            case wire.Credit(generation=0):
                self.credit += message.frames
            case wire.Audio():
                assert message.first_sample == self.samples and not message.gap
                self.samples += message.samples
                self.chunks.append(message.payload)
                stamps = message.stamps
                inside_ns = stamps["net_end"] - stamps["engine_in"]
                self.latencies_ns.append(time.monotonic_ns() - stamps["client"] - inside_ns)
                way_out_ns = stamps["gateway_out"] - stamps["net_end"]
                self.gateway_ns.append(stamps["gateway_in"] - stamps["client"] + way_out_ns)
            case wire.Error():
                self.errors.append(message)
                self.ending = message if message.fatal else None
            case wire.Played() | wire.Flushed():
                self.ending = message

    def check(self) -> None:
        """Assert that the utterance was played, complete and exact, without an error."""
        self._thread.join()
        self.running.discard(self)
        assert isinstance(self.ending, wire.Played), f"{self.stream} ended with {self.ending}"
        assert self.ending.total_samples == len(self.mel) * HOP
        np.testing.assert_array_equal(np.concatenate(self.chunks), rendered(self.seed, self.mel))
        assert self.errors == []
        self.client.leave()

    def abandon(self) -> None:
        """Stop the thread, so that the socket can be closed by another."""
        self._over.set()
        self._thread.join()
        self.running.discard(self)


class GatewayHarness:
    """A gateway process and its endpoint."""

    def __init__(self, process: "subprocess.Popen[str]", run_dir: Path) -> None:
        self.process, self.run_dir, self.was_killed = process, run_dir, False
        self.endpoint = f"ipc://{run_dir}/glowd.ipc"

    def client(self, **options: Any) -> RawClient:
        return RawClient(self.endpoint, **options)

    def kill(self) -> None:
        """kill -9"""
        self.was_killed = True
        self.process.kill()
        self.process.wait(WAIT_S)

    def wait_for(self, what: str, holds: Callable[[Snapshot], object], timeout_s: float = WAIT_S) -> Snapshot:
        """Wait until `holds` is true of the daemon's status, and return that."""
        watcher, until_s = self.client(name="watcher"), time.monotonic() + timeout_s
        while not holds(snapshot := watcher.status()):
            assert time.monotonic() < until_s, f"never {what}: {snapshot}"
            time.sleep(0.02)
        watcher.leave()
        return snapshot

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        words = Path(f"/proc/{self.process.pid}/status").read_text().split()
        return int(words[words.index("VmRSS:") + 1]) * 1024


def start_gateway(run_dir: Path, *settings: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "glowd.daemon.gateway", "--run-dir", str(run_dir)]
    words = [
        "voices={glow={engine='waveglow'}}",
        f"files.directory={run_dir}/recordings",
        "log.level=warning",
        *settings,
    ]
    command += [word for setting in words for word in ("--set", setting)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> None:
    """Stop a process; kill it if it does not stop."""
    process.terminate()
    try:
        process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


@contextlib.contextmanager
def running_gateway(*settings: str) -> Iterator[GatewayHarness]:
    """A gateway in its own run directory, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        process = start_gateway(Path(name), *settings)
        gateway = GatewayHarness(process, Path(name))
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            assert "ready" in first, first
            yield gateway
            assert gateway.was_killed or gateway.process.poll() is None, "the gateway has crashed"
        finally:
            for utterance in list(UtteranceClient.running):
                utterance.abandon()
            for client in list(RawClient.alive):
                client.kill()
            for one in {process, gateway.process}:  # a test may have started another
                end(one)


@contextlib.contextmanager
def running_all(*settings: str, device: bool = True) -> Iterator[tuple[GatewayHarness, FakeEngine, FakeSpeaker]]:
    """A gateway with an engine and a speaker that are ready."""
    with running_gateway(*settings) as gateway:
        engine, speaker = FakeEngine(gateway.run_dir), FakeSpeaker(gateway.run_dir, device=device)
        try:
            gateway.wait_for("ready", lambda found: found.voices["glow"].ready)
            gateway.wait_for("a speaker", lambda found: found.roles["speaker"].alive == device)
            yield gateway, engine, speaker
        finally:
            engine.crash()
            speaker.crash()
