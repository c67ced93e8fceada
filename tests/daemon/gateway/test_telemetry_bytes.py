"""The bytes of what the daemon publishes, and of what engine and speaker report: golden, so that they never change."""

import threading
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.config_reader import load
from glowd.daemon.gateway import snapshot
from glowd.daemon.gateway.snapshot import Snapshots
from glowd.daemon.wire.telemetry import Capacity, Degradation, Snapshot, VoiceInfo
from tests.daemon.gateway.router_rig import HOP, VOICES, Hall, mel

GOLDEN = Path(__file__).parents[1] / "golden"
MS = 1_000_000
CAPACITY = Capacity(streams=4, measured=True, share=0.5, chunk_ms=46.44, alone_ms=5.0, round_ms=20.0)
DEGRADED = Degradation(level=2, last_level=3, chunk_frames=16, refuses=False, since_ns=7_000, reason="60% were late")
LOAD = ipc.EngineLoad(
    streams=1, busy=0.25, stolen=0.125, batches_per_s=21.5, audio_per_s=1.0, rss_bytes=300 << 20, late=0.6, level=2,
    degraded=DEGRADED,
)  # fmt: skip
SPEAKER_LOAD = ipc.SpeakerLoad(rss_bytes=50 << 20, limited_samples=0)


def running_hall() -> Hall:
    """One stream that is heard on the device, one that is idle; one engine that falls behind, one that is not there."""
    hall = Hall("server.max_streams=8")
    hall.ready("glow", capacity=CAPACITY)
    hall.engines["glow"].handle(ipc.Load(LOAD), hall.now_ns)
    hall.speaker.handle(ipc.Load(SPEAKER_LOAD), [], hall.now_ns)
    hall.hello(b"a")
    hall.open(b"a", "heard", "device", "socket")
    hall.open(b"a", "idle", "null")
    hall.say(b"a", mel("heard"), mel("heard", 1, 4))
    (key,) = {message.key for message in hall.to_engine if isinstance(message, ipc.Start)}
    session = hall.desk.streams.by_key[key]
    at_ns, samples = hall.now_ns, 4 * HOP
    audio = np.zeros(samples, np.float32)
    pcm = ipc.Pcm(
        key=key, first_sample=0, samples=samples, frames_done=4, t_client_ns=at_ns - 20 * MS, t_gateway_ns=at_ns - 15 * MS,
        t_engine_ns=at_ns - 14 * MS, t_start_ns=at_ns - 10 * MS, t_end_ns=at_ns - MS, batch=2, audio=audio,
    )  # fmt: skip
    session.pcm(pcm, at_ns)
    session.position(ipc.Position(key, HOP, at_ns + 30 * MS))
    session.underrun(ipc.Underrun(key, HOP, 64, at_ns + 40 * MS))
    return hall


def published(hall: Hall) -> Snapshot:
    config = load(None, [VOICES, "server.max_streams=8"])
    taker = Snapshots(config, hall.desk, hall.engines, threading.Event())
    taker.turn_ms, taker._started_ns = 1.5, hall.now_ns - 5_000 * MS
    return taker.take()


def maps() -> dict[str, Any]:
    """What is published and reported, by the name of its golden file."""
    hall = running_hall()
    (welcome,) = hall.say(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome)
    ready = ipc.Ready("glow", VoiceInfo.from_map(welcome.voices[0]), 7, "cuda:1", 2)
    reports = [ready, ipc.Load(LOAD), ipc.Load(SPEAKER_LOAD)]
    return {
        "telemetry": msgpack.packb(published(hall).to_map()),
        "voices": msgpack.packb(welcome.voices),
        "reports": b"".join(part for report in reports for part in ipc.encode(report)),
    }


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock and no memory of the process in what is published."""
    monkeypatch.setattr(snapshot, "rss_bytes", lambda: 40 << 20)
    monkeypatch.setattr(snapshot.time, "monotonic_ns", lambda: 1_000_000_000_000)


@pytest.mark.parametrize("name", ["telemetry", "voices", "reports"])
def test_published_bytes_never_change(name: str) -> None:
    assert maps()[name].hex() + "\n" == (GOLDEN / f"{name}.hex").read_text()


def test_a_snapshot_is_read_as_it_was_written() -> None:
    found = published(running_hall())
    assert Snapshot.from_map(msgpack.unpackb(msgpack.packb(found.to_map()))) == found
