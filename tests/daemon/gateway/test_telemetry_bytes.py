"""The bytes of what the daemon publishes, and of what engine and speaker report: golden, so that they never change.

Telemetry may have new keys; those that a golden map has stay as they are.
"""

from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.gateway import snapshot
from glowd.daemon.wire.telemetry import Capacity, Degradation, Snapshot, VoiceInfo
from tests.harness.router import HOP, RouterHarness, mel_message

GOLDEN = Path(__file__).parents[1] / "golden"
MS = 1_000_000
CAPACITY = Capacity(streams=4, measured=True, share=0.5, chunk_ms=46.44, alone_ms=5.0, round_ms=20.0)
DEGRADED = Degradation(level=2, last_level=3, chunk_frames=16, refuses=False, since_ns=7_000, reason="60% were late")
LOAD = ipc.EngineLoad(
    streams=1, busy=0.25, stolen=0.125, batches_per_s=21.5, audio_per_s=1.0, rss_bytes=300 << 20, late=0.6, level=2,
    degraded=DEGRADED,
)  # fmt: skip
SPEAKER_LOAD = ipc.SpeakerLoad(rss_bytes=50 << 20, limited_samples=0)


def running_harness() -> RouterHarness:
    """One stream that the device plays, one that is idle; one engine that falls behind, one that is not alive."""
    harness = RouterHarness("server.max_streams=8")
    harness.engine_ready("glow", capacity=CAPACITY)
    harness.from_engine("glow", ipc.Load(LOAD))
    harness.from_speaker(ipc.Load(SPEAKER_LOAD))
    harness.connect(b"a")
    harness.open(b"a", "heard", "device", "socket")
    harness.open(b"a", "idle", "null")
    harness.send(b"a", mel_message("heard"), mel_message("heard", 1, 4))
    session, at_ns = harness.session("heard"), harness.now_ns
    key = session.state.utterance.key
    pcm = ipc.Pcm(
        key=key, first_sample=0, samples=4 * HOP, frames_done=4, t_client_ns=at_ns - 20 * MS,
        t_gateway_ns=at_ns - 15 * MS, t_engine_ns=at_ns - 14 * MS,
        t_due_ns=at_ns - 15 * MS, t_start_ns=at_ns - 10 * MS, t_end_ns=at_ns - MS,
        batch=2, audio=np.zeros(4 * HOP, np.float32),
    )  # fmt: skip
    session.engine.pcm(pcm, at_ns)
    session.sinks.position(
        ipc.Position(key, HOP, at_ns + 30 * MS, latency_ns=187_340_000, is_paced=True, drift_ppm=-41.25)
    )
    session.sinks.underrun(ipc.Underrun(key, HOP, 64, at_ns + 40 * MS))
    return harness


def published(harness: RouterHarness) -> Snapshot:
    harness.snapshots.turn_ms, harness.snapshots._started_ns = 1.5, harness.now_ns - 5_000 * MS
    return harness.snapshots.take()


def maps() -> dict[str, Any]:
    """What is published and reported, by the name of its golden file."""
    harness = running_harness()
    (welcome,) = harness.send(b"a", wire.Hello("a"))
    assert isinstance(welcome, wire.Welcome)
    ready = ipc.Ready("glow", VoiceInfo.from_map(welcome.voices[0]), 7, "cuda:1", 2)
    reports = [ready, ipc.Load(LOAD), ipc.Load(SPEAKER_LOAD)]
    return {
        "telemetry": msgpack.packb(published(harness).to_map()),
        "telemetry_catch_up": msgpack.packb(published(harness).to_map()["streams"]["heard"]),
        "telemetry_drift": msgpack.packb(published(harness).to_map()["streams"]["heard"]),
        "voices": msgpack.packb(welcome.voices),
        "reports": b"".join(part for report in reports for part in ipc.encode(report)),
    }


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed size of the process."""
    monkeypatch.setattr(snapshot, "rss_bytes", lambda: 40 << 20)


def kept(golden: Any, published: Any) -> Any:
    """What is published, without the keys that the golden map does not have."""
    if isinstance(golden, dict):
        return {key: kept(value, published[key]) for key, value in golden.items()}
    if isinstance(golden, list):
        return [kept(one, other) for one, other in zip(golden, published, strict=True)]
    return published


@pytest.mark.parametrize("name", ["telemetry", "telemetry_catch_up", "voices"])
def test_published_telemetry_keeps_its_keys(name: str) -> None:
    golden = msgpack.unpackb(bytes.fromhex((GOLDEN / f"{name}.hex").read_text()))
    assert kept(golden, msgpack.unpackb(maps()[name])) == golden


@pytest.mark.parametrize("name", ["reports", "telemetry_drift"])
def test_published_bytes_never_change(name: str) -> None:
    assert maps()[name].hex() + "\n" == (GOLDEN / f"{name}.hex").read_text()


def test_snapshot_is_read_as_it_was_written() -> None:
    found = published(running_harness())
    assert Snapshot.from_map(msgpack.unpackb(msgpack.packb(found.to_map()))) == found
