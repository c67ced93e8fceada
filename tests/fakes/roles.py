"""A fake engine and a fake speaker for tests of the gateway: threads that use the messages of ipc.py, fast and predictable.

The samples of the engine depend on the seed, on the absolute index, and on the frames of a short history, as those of a
network do. An engine that starts in the middle gives wrong samples until it has that history, and right ones from then on.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zmq

from glowd.daemon import ipc
from glowd.daemon.wire.fields import Array, Message
from glowd.daemon.wire.telemetry import Capacity, Degradation, VoiceInfo

HOP, BINS, RATE, HISTORY, LEAD, LOOK_AHEAD = 256, 80, 22_050, 4, 2, 1
FORMAT = {"rate_hz": RATE, "n_fft": 1024, "hop": HOP, "win": 1024, "n_mels": BINS, "fmin_hz": 0.0, "fmax_hz": 8000.0}


def frames(count: int, seed: int = 0) -> Array:
    """Mel frames [count, BINS], each different."""
    return np.random.default_rng(seed).uniform(-11, 2, (count, BINS)).astype(np.float32)


def rendered(seed: int, mel: Array, first_frame: int = 0) -> Array:
    """The samples of frames that begin at `first_frame`, without history before them: [frames * HOP]."""
    padded = np.concatenate([np.zeros(HISTORY), mel[:, 0].astype(np.float64)])
    context = np.stack([padded[i : i + len(mel)] for i in range(HISTORY + 1)]).sum(0)
    index = np.arange(first_frame * HOP, (first_frame + len(mel)) * HOP)
    return ((index * 7 + seed * 1013) % 4096 / 4096 + np.repeat(context, HOP) / 64).astype(np.float32)


class FakeRole:
    """A thread with a DEALER to the gateway. `crash` is like kill -9: its state is lost and nothing is sent.

    While `hung` is set it neither reads nor sends, as a stopped process does.
    """

    identity: bytes
    name: str

    def __init__(self, run_dir: Path) -> None:
        self._endpoint, self._ended = f"ipc://{run_dir}/{self.name}.ipc", threading.Event()
        self.hung = threading.Event()
        self.instance = time.monotonic_ns() // 1000
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def crash(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context:
            self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self.connect()
            sent_s = 0.0
            while not self._ended.is_set():
                if self.hung.is_set():
                    self._ended.wait(0.005)
                    continue
                if time.monotonic() - sent_s > 0.5:
                    sent_s = time.monotonic()
                    self._send(self.hello())
                if self._socket.poll(5):
                    self.take(self.decode(self._socket.recv_multipart()))
                self.step()
            self._socket.close()

    def connect(self) -> None:
        self._socket.setsockopt(zmq.IDENTITY, self.identity)
        self._socket.connect(self._endpoint)

    def decode(self, parts: list[bytes]) -> Message:
        return ipc.decode(parts)

    def _send(self, message: Message) -> None:
        self._socket.send_multipart(ipc.encode(message))

    def hello(self) -> Message:
        raise NotImplementedError

    def take(self, message: Message) -> None:
        raise NotImplementedError

    def step(self) -> None:
        """Called after every message, and every 5 ms."""


@dataclass
class Rendering:
    """One stream in the engine."""

    seed: int
    first_frame: int
    mel: Array = field(default_factory=lambda: np.zeros((0, BINS), np.float32))
    done: int = 0
    ended: bool = False
    stamps: tuple[int, int, int] = (0, 0, 0)


class FakeEngine(FakeRole):
    """Renders at once. While `hold` is set it waits, as a busy network does."""

    name = "engine"

    def __init__(
        self, run_dir: Path, engine: str = "glow", device: str = "cpu", capacity: Capacity | None = None
    ) -> None:
        self.identity, self.device, self.capacity = f"engine:{engine}".encode(), device, capacity
        self.refuses = False
        self.streams: dict[int, Rendering] = {}
        self.starts: list[ipc.Start] = []
        self.hold = threading.Event()
        self._failure, self._fails_at_start = "", True
        super().__init__(run_dir)

    def fail_next(self, text: str, at_start: bool = True) -> None:
        """Fail the next stream that frames arrive for; with `at_start`, only one whose first frames arrive."""
        self._failure, self._fails_at_start = text, at_start

    def hello(self) -> Message:
        info = VoiceInfo(
            name="glow", rate_hz=RATE, hop=HOP, format=FORMAT, look_ahead_frames=LOOK_AHEAD, latency_ms=12.0,
            whole_utterance=False, default=True, history_frames=HISTORY, lead_frames=LEAD, capacity=self.capacity,
        )  # fmt: skip
        if self.refuses:
            degraded = Degradation(level=3, refuses=True, reason="all chunks are late")
            self._send(ipc.Load(ipc.EngineLoad(streams=len(self.streams), busy=1.0, level=3, degraded=degraded)))
        return ipc.Ready(voice="glow", info=info, instance=self.instance, device=self.device)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Frames() if self._failure and (message.first_frame == 0 or not self._fails_at_start):
                self._send(ipc.Failed(key=message.key, text=self._failure))
                self._failure = ""
                del self.streams[message.key]
            case ipc.Start():
                self.starts.append(message)
                first = message.first_frame - message.lead_frames
                self.streams[message.key] = Rendering(message.seed, first, done=message.lead_frames)
            case ipc.Frames() if stream := self.streams.get(message.key):
                assert message.first_frame == stream.first_frame + len(stream.mel)
                stream.mel = np.concatenate([stream.mel, message.mel])
                stream.stamps = (message.t_client_ns, message.t_gateway_ns, self.now_ns())
            case ipc.Finish() if stream := self.streams.get(message.key):
                stream.ended = True
            case ipc.Drop():
                self.streams.pop(message.key, None)
            case ipc.DropAll():
                self.streams.clear()
        self.step()

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def step(self) -> None:
        if not self.hold.is_set():
            for key in list(self.streams):
                self._render(key, self.streams[key])

    def _render(self, key: int, stream: Rendering) -> None:
        start_ns = self.now_ns()
        end = len(stream.mel) - (0 if stream.ended else LOOK_AHEAD)
        last = stream.ended and end == len(stream.mel)
        if end <= stream.done and not last:
            return
        begin = max(0, stream.done - HISTORY)
        window = rendered(stream.seed, stream.mel[begin:end], stream.first_frame + begin)
        audio, first = window[(stream.done - begin) * HOP :], (stream.first_frame + stream.done) * HOP
        stream.done = end
        client_ns, gateway_ns, engine_ns = stream.stamps
        self._send(
            ipc.Pcm(
                key, first, len(audio), last, stream.first_frame + end, client_ns, gateway_ns, engine_ns,
                gateway_ns, max(start_ns, engine_ns), self.now_ns(), 1, audio,
            )
        )  # fmt: skip
        if last:
            del self.streams[key]


@dataclass
class Track:
    """One stream in the speaker."""

    at: int
    audio: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    paused: bool = False
    ended: bool = False


class FakeSpeaker(FakeRole):
    """Plays `speed` times as fast as a device; `heard` keeps what was played of each stream, by its key."""

    identity, name = b"speaker", "speaker"

    def __init__(self, run_dir: Path, heard: dict[int, Array] | None = None, device: bool = True) -> None:
        self.heard: dict[int, Array] = {} if heard is None else heard
        self.tracks: dict[int, Track] = {}
        self.device, self.speed = device, 4.0
        self.detached: list[int] = []
        self._played_s = time.monotonic()
        super().__init__(run_dir)

    def hello(self) -> Message:
        if not self.device:
            return ipc.DeviceGone(text="this machine offers no sound device", instance=self.instance)
        return ipc.DeviceReady(name="fake", rate_hz=RATE, latency_ms=20, instance=self.instance)

    def take(self, message: Message) -> None:
        match message:
            case ipc.Attach():
                self.tracks[message.key] = Track(message.first_sample)
                self.heard[message.key] = self.heard.get(message.key, np.zeros(0, np.float32))[: message.first_sample]
            case ipc.Pcm() if track := self.tracks.get(message.key):
                assert message.first_sample == track.at + len(track.audio) and not track.ended
                track.audio, track.ended = np.concatenate([track.audio, message.audio]), message.last
            case ipc.Pause() | ipc.Resume() if track := self.tracks.get(message.key):
                track.paused = isinstance(message, ipc.Pause)
            case ipc.Flush() if track := self.tracks.get(message.key):
                self._play(message.key, track, min(message.fade_samples, len(track.audio)), report=False)
                del self.tracks[message.key]
                self._send(ipc.Flushed(key=message.key, last_sample_played=track.at - 1, dropped=len(track.audio)))
            case ipc.Detach():
                self.tracks.pop(message.key, None)
                self.detached.append(message.key)
            case ipc.DetachAll():
                self.tracks.clear()

    def step(self) -> None:
        now_s = time.monotonic()
        samples = int((now_s - self._played_s) * RATE * self.speed)
        if samples < 100:
            return
        self._played_s = now_s
        for key, track in list(self.tracks.items()):
            if not track.paused:
                self._play(key, track, min(samples, len(track.audio)))

    def _play(self, key: int, track: Track, samples: int, report: bool = True) -> None:
        self.heard[key] = np.concatenate([self.heard[key], track.audio[:samples]])
        track.at, track.audio = track.at + samples, track.audio[samples:]
        if not report:
            return
        if track.ended and not len(track.audio):
            del self.tracks[key]
            self._send(ipc.Played(key=key, samples=track.at, t_dac_ns=time.monotonic_ns()))
        elif samples:
            self._send(ipc.Position(key=key, samples=track.at, t_dac_ns=time.monotonic_ns()))
