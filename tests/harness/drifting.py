"""Clients with clocks of their own, a whole daemon whose voice makes tones, a sound server, and what is heard of it.

A stream is named by how fast its client's clock is, in parts per million. Clients and engine are processes of their own, as
elsewhere. All but the engine is real: the daemon, its speaker, the sound server, and the library.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glowd.clients import Client
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.telemetry import Snapshot, StreamSnapshot
from glowd.flow.mel import Floats
from tests.fakes.clocked_client import name_of
from tests.fakes.roles import HOP, RATE
from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.joining import free_port
from tests.harness.priority import clients_elsewhere
from tests.harness.waiting import until

SETTINGS = (
    "speaker.device=pulse", f"speaker.rate_hz={RATE}", "speaker.latency_ms=200", "speaker.prefill_ms=1000",
    "server.credit_ms=5000", "server.max_utterance_s=3600",
)  # fmt: skip
"""Long buffers: a busy machine must not cause gaps. The rate of the sink: PulseAudio, when it resampled from 44.1 kHz, was seen
to ask for samples in steps of its own, by which the device's reports wandered by up to 10 ms in 40 s."""
PPM = (500, -500, 0)
"""By how much the clocks of the clients are fast."""
TONES_HZ = (440, 1000, 1730)
FOLLOWED_S, WITHIN_MS = 55.0, 2.0
"""What the documents promise: how long it takes to follow a clock that is known to pace a stream, which takes 8 s on a machine
at rest; and how well the latency is held from then on."""
HELD_S, LOOK_S = 8.0, 1.0
"""The latency that is held is the mean of so long a time, until that is known; looks at it come so often."""
STEP, STEPS = 1 / 32768, 3
"""Of the 16 bits that the sound server takes; and how many of them tones may differ by. A missing sample makes hundreds."""


@contextlib.contextmanager
def peer(module: str, *words: object, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of a module of tests/fakes, which ends when its input does."""
    command = [sys.executable, "-m", f"tests.fakes.{module}", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def tone_daemon(env: dict[str, str], *settings: str) -> Iterator[Daemon]:
    """A daemon whose voice glow makes tones; the seed of a stream is its frequency in Hz."""
    url = f"tcp://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        keys = KeyFiles(Path(name, "keys"))
        engines = (f"server.engines={url}", f"server.keys={keys.directory}", f"files.directory={name}/recordings")
        voices = "voices={glow={engine='waveglow',devices=[]}}"
        with running_daemon(voices, *engines, *SETTINGS, *settings, env=env) as daemon, clients_elsewhere():
            address = Address(url, "", keys.new("pool", ["engine"]), keys.server()[0])
            with peer("tones", GLOWD_JOIN=address.text("pool")), daemon.client() as glow:
                until(lambda: snapshot_of(glow).voices["glow"].ready, "an engine that serves", every_s=0.1)
                yield daemon


def snapshot_of(glow: Client) -> Snapshot:
    """The daemon as `glowctl status` shows it."""
    return Snapshot.from_map(glow.status().info)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a client has sent, and what the daemon says of it."""

    frames: int
    samples: int
    underruns: int

    @property
    def sent_samples(self) -> int:
        """How many the frames make."""
        return self.frames * HOP


@dataclass(frozen=True, slots=True)
class ClockedClient:
    """A client on the device whose clock is `ppm` fast."""

    ppm: float
    process: "subprocess.Popen[str]"

    @property
    def name(self) -> str:
        """Of its stream."""
        return name_of(self.ppm)

    def begin(self) -> None:
        """Have it speak."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def end(self) -> None:
        """Have it send nothing more."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def spoken(self) -> Spoken:
        """Wait until all was heard."""
        return Spoken(**json.loads(self.line()))

    def line(self) -> str:
        """The next one that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client {self.name} has ended early; its error is above"
        return line


@contextlib.contextmanager
def clocked_clients(endpoint: str) -> Iterator[list[ClockedClient]]:
    """One of each clock, with a tone of its own. They begin together: a process that starts would make the others late."""
    with contextlib.ExitStack() as stack:
        wanted = list(zip(PPM, TONES_HZ))
        processes = [stack.enter_context(peer("clocked_client", endpoint, ppm, f_hz)) for ppm, f_hz in wanted]
        clients = [ClockedClient(ppm, process) for (ppm, _), process in zip(wanted, processes)]
        for client in clients:
            client.line()
        for client in clients:
            client.begin()
        yield clients


def watch(glow: Client, seconds: float, every_s: float = LOOK_S) -> Iterator[tuple[float, Snapshot]]:
    """The daemon from time to time, with how long it is since the first one, in s."""
    began_s, number = time.monotonic(), 0
    while (at_s := time.monotonic() - began_s) < seconds:
        yield at_s, snapshot_of(glow)
        number += 1
        time.sleep(max(0.0, began_s + number * every_s - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Look:
    """One stream at one moment."""

    at_s: float
    latency_ms: float | None
    drift_ppm: float | None
    underruns: int
    skipped_ms: float

    @classmethod
    def at(cls, at_s: float, stream: StreamSnapshot) -> "Look":
        gaps = stream.underruns
        count = sum(value or 0 for value in (gaps.client, gaps.engine, gaps.device))
        return cls(at_s, stream.latency_ms, stream.drift_ppm, count, stream.skipped_ms or 0.0)


def known_s(looks: Sequence[Look]) -> float:
    """When it was known that a clock paces a stream; infinite if it never was."""
    return next((look.at_s for look in looks if look.drift_ppm is not None), np.inf)


def held_ms(looks: Sequence[Look]) -> float:
    """The latency that is held: what a stream had until then. Not a number if it was never known."""
    end_s = known_s(looks) + 1.5 * LOOK_S  # between two looks
    first = [look.latency_ms for look in looks if look.latency_ms is not None and end_s - HELD_S < look.at_s <= end_s]
    return float(np.mean(first)) if first else np.nan


def off_ms(looks: Sequence[Look]) -> float:
    """By how much the latency of a stream differed from that at most, once its clock was followed; infinite if not known."""
    held, since_s = held_ms(looks), known_s(looks) + FOLLOWED_S
    late = [look for look in looks if look.at_s >= since_s]
    return max((abs(look.latency_ms - held) if look.latency_ms else np.inf for look in late), default=np.inf)


def steps_off(heard: Floats, tones_hz: Sequence[int] = TONES_HZ, window: int = RATE // 10) -> float:
    """The largest difference of a recording from these tones, in steps of 16 bits.

    Their frequencies may move a little within a window, as a resampler moves them; their phases may not jump.
    """
    t = np.linspace(-1, 1, window)
    phases = [2 * np.pi * f_hz * np.arange(window) / RATE for f_hz in tones_hz]
    waves = [wave(phase) for phase in phases for wave in (np.cos, np.sin)]
    basis, _ = np.linalg.qr(np.stack([power * wave for wave in waves for power in (1, t, t**2, t**3)], 1))
    found = 0.0
    for begin in range(0, max(1, len(heard) - window), 600 * window):  # a minute at a time
        part = heard[begin : begin + 600 * window + window]
        parts = np.lib.stride_tricks.sliding_window_view(part, window)[:: window // 2].astype(np.float64).T
        found = max(found, float(np.abs(parts - basis @ (basis.T @ parts)).max()))
    return found / STEP


def sounding(heard: Floats, margin_s: float = 2.0) -> Floats:
    """A recording without the silence around what sounds, and without the first and last seconds of that."""
    loud = np.flatnonzero(np.abs(heard) > 0.1)
    margin = int(margin_s * RATE)
    assert len(loud) and loud[-1] - loud[0] > 2 * margin, "nothing was recorded"
    return heard[loud[0] + margin : loud[-1] - margin]


def looks_of(seconds: Sequence[tuple[float, Snapshot]]) -> Mapping[str, list[Look]]:
    """What was seen of each stream."""
    names = dict.fromkeys(name for _, snapshot in seconds for name in snapshot.streams)
    return {name: [Look.at(at_s, found) for at_s, one in seconds if (found := one.streams.get(name))] for name in names}
