"""The clients of a soak: each opens streams, speaks utterances of random lengths, interrupts some, and judges each.

Rules: a thread for each. A client goes on whatever happens; what should not have happened is recorded as a fault.
"""

import contextlib
import random
import threading
import time
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glowd.clients import Client, errors
from glowd.clients.cli.mel_sources import at_speaking_pace
from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.daemon.wire import Code, WarningCode
from glowd.flow.mel import MelFormat
from tests.harness.daemon import Daemon
from tests.harness.speaking import AudioReader, split
from tests.harness.waiting import WAIT_S
from tests.soak import utterances
from tests.soak.bank import SEEDS, Bank, stream_name
from tests.soak.records import Records
from tests.soak.windows import Windows

LIVE_CHUNKS, FAST_CHUNKS = (4,), (1, 17, 64, 8)
LIVE_PAUSE_S, FAST_PAUSE_S = (0.2, 2.0), (2.0, 6.0)
INTERRUPTED = 0.3
"""The share of utterances that are interrupted."""
BARGE_IN_AFTER_S = (0.0, 0.0, 0.05)
"""From the last frame that was sent. After more than the device holds, 100 ms, it has a gap that is the client's own."""
MOST_UTTERANCES = 5
NEW_CLIENT = 0.2
"""How often a client connects anew before it opens a stream."""
GAPS = {WarningCode.LATE_FRAMES, WarningCode.LATE_ENGINE, WarningCode.DEVICE_GAP}
BUSY = (Code.AT_CAPACITY, Code.ENGINE_LOST, Code.SINK_UNAVAILABLE, Code.DEVICE_LOST)
"""Why a stream may be refused for a while: the daemon says when, and a client tries again."""
RETRY_S = 0.5


@dataclass(frozen=True)
class Plan:
    """What a client speaks. `is_live`: at the pace of speech. A sink `file` gets the name of the stream."""

    voice: str
    sinks: tuple[str, ...]
    is_live: bool


PLANS: Sequence[Plan] = (
    Plan("glow", ("device", "socket"), True),
    Plan("glow", ("device", "socket"), True),
    Plan("glow", ("device", "file"), True),
    Plan("glow", ("device",), True),
    Plan("rtisi", ("device", "socket"), True),
    Plan("rtisi", ("socket",), True),
    Plan("glow", ("socket",), False),
    Plan("glow", ("file", "socket"), False),
    Plan("rtisi", ("socket",), False),
    Plan("glow", ("null",), False),
)


@dataclass(frozen=True)
class Scene:
    """What all clients of a soak share."""

    daemon: Daemon
    bank: Bank
    records: Records
    windows: Windows
    recordings: Path
    """The daemon's folder for file sinks."""
    over: threading.Event = field(default_factory=threading.Event)


class SoakClient:
    """One client; `number` tells it from the others, and decides what it does."""

    def __init__(self, scene: Scene, plan: Plan, number: int) -> None:
        self._scene, self._plan, self._number = scene, plan, number
        self._random = random.Random(number)
        self._client: Client | None = None
        self._visits = 0
        self.thread = threading.Thread(target=self._run, name=f"soak-{number}", daemon=True)

    def _run(self) -> None:
        records = self._scene.records
        while not self._scene.over.is_set():
            try:
                self._visit(self._connected())
            except Exception as fault:  # the edge of the thread: it goes on, and the fault is in the verdict
                records.fault("client", f"{self._plan}: {type(fault).__name__}: {fault}")
                self._leave()
                self._scene.over.wait(RETRY_S)
        self._leave()

    def _connected(self) -> Client:
        if self._client and self._random.random() < NEW_CLIENT:
            self._leave()
        if self._client is None:
            self._client = self._scene.daemon.client(f"soak-{self._number}")
        return self._client

    def _leave(self) -> None:
        if self._client:
            with contextlib.suppress(errors.GlowdError):
                self._client.close()
        self._client = None

    def _visit(self, client: Client) -> None:
        """Open a stream, and speak some utterances."""
        seed = self._random.choice(SEEDS)
        name = stream_name(self._plan.voice, seed, self._number, self._visits)
        self._visits += 1
        if stream := self._opened(client, name, seed):
            with contextlib.closing(stream):
                for _ in range(self._random.randint(1, MOST_UTTERANCES)):
                    Utterance(self._scene, self._plan, stream, self._random).speak()
                    if self._scene.over.wait(
                        self._random.uniform(*LIVE_PAUSE_S if self._plan.is_live else FAST_PAUSE_S)
                    ):
                        return

    def _opened(self, client: Client, name: str, seed: int) -> Stream | None:
        """The stream, as soon as the daemon has room for it; None when the soak is over before that."""
        sinks = [f"file:{name}" if sink == "file" else sink for sink in self._plan.sinks]
        while not self._scene.over.is_set():
            try:
                return client.open(name, voice=self._plan.voice, sinks=sinks, seed=seed)
            except errors.GlowdError as refusal:
                if refusal.code not in BUSY:
                    raise
                now_s = time.monotonic()
                disturbed = self._scene.windows.touches(now_s - 1, now_s)
                self._scene.records.count(f"refused {'while disturbed' if disturbed else 'outside'}")
                self._scene.over.wait(RETRY_S)
        return None


class Utterance:
    """The running utterance of a stream, from its first frame to its verdict."""

    def __init__(self, scene: Scene, plan: Plan, stream: Stream, chance: random.Random) -> None:
        self._scene, self._plan, self._stream, self._random = scene, plan, stream, chance
        self._number = stream.generation
        self._entry = scene.bank.entry(stream.name, self._number)
        self._sent_frames = 0

    def speak(self) -> None:
        """Speak it to its end, or to where it is interrupted; then judge it."""
        begin_s, warned = time.monotonic(), len(self._stream.warnings)
        interrupted = self._random.random() < INTERRUPTED
        reading = AudioReader(self._stream) if "socket" in self._plan.sinks else None
        with reading or contextlib.nullcontext():
            self._send(self._random.randint(1, len(self._entry.mel)) if interrupted else len(self._entry.mel))
            ending, place = self._interrupt() if interrupted else (self._stream.wait_played(WAIT_S), "")
        disturbed = self._scene.windows.touches(begin_s, time.monotonic())
        self._judge(ending, "" if disturbed else place, reading)
        self._count(ending, disturbed, warned)
        if reading and not disturbed and self._plan.is_live:
            self._scene.records.late([late_s(chunk) for chunk in reading.chunks if "net_start" in chunk.stamps])

    def _send(self, frames: int) -> None:
        chunks = split(self._entry.mel[:frames], LIVE_CHUNKS if self._plan.is_live else FAST_CHUNKS)
        for chunk in at_speaking_pace(chunks, MelFormat()) if self._plan.is_live else chunks:
            self._stream.send(chunk, WAIT_S)
            self._sent_frames += len(chunk)

    def _interrupt(self) -> tuple[wire.Played | wire.Flushed, str]:
        """Barge in, sometimes a little after the last frame was sent; what is wrong with the place that the daemon says."""
        time.sleep(self._random.choice(BARGE_IN_AFTER_S))
        known_samples, asked_s = self._stream.heard_samples, time.monotonic()
        ending = self._stream.flush()
        if not isinstance(ending, wire.Flushed) or "device" not in self._plan.sinks:
            return ending, ""
        took_s = time.monotonic() - asked_s
        return ending, utterances.place_wrong(ending.last_sample_played, known_samples, took_s, self._stream.rate_hz)

    # ------------------------------------------------------------ the verdict

    def _judge(self, ending: object, place: str, reading: AudioReader | None) -> None:
        heard, expected, wrong = reading.samples if reading else None, self._entry.samples, ""
        if isinstance(ending, wire.Played):
            wrong = utterances.played_wrong(ending.total_samples, heard, expected[: self._sent_frames * 256])
            if not wrong and "file" in self._plan.sinks:
                wrong = utterances.file_wrong(self._take_file(), expected)
        elif isinstance(ending, wire.Flushed):
            wrong = utterances.flushed_wrong(ending.last_sample_played, heard, expected, self._sent_frames) or place
        else:
            wrong = f"it ended with {ending}"
        if wrong:
            self._scene.records.fault("utterances", f"{self._stream.name}/{self._number}: {wrong}")

    def _take_file(self) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        number = f"-{self._number}" if self._number else ""
        path = self._scene.recordings / f"{self._stream.name}{number}.wav"
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        path.unlink()
        return samples

    def _count(self, ending: object, disturbed: bool, warned: int) -> None:
        records = self._scene.records
        records.count(type(ending).__name__.lower())
        underruns = ending.underruns if isinstance(ending, wire.Played) else 0
        if underruns and not disturbed:
            records.count("underruns of undisturbed utterances", underruns)
        told = {warning.code for warning in self._stream.warnings} & GAPS
        if underruns and not told:
            records.fault("gaps", f"{self._stream.name}/{self._number} had {underruns}, and no warning told of them")


def late_s(chunk: wire.Audio) -> float:
    """From the arrival of a chunk's frames to its samples' leaving."""
    return (chunk.stamps["gateway_out"] - chunk.stamps["gateway_in"]) / 1e9


def run_clients(scene: Scene, plans: Sequence[Plan] = PLANS) -> list[SoakClient]:
    """Start all clients; they end when the scene is over."""
    clients = [SoakClient(scene, plan, number) for number, plan in enumerate(plans)]
    for client in clients:
        client.thread.start()
        time.sleep(0.061)
    return clients
