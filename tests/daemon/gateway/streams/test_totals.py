"""What is counted over all streams."""

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.gateway.streams.totals import Durations
from glowd.daemon.wire import Code
from glowd.daemon.wire import messages as wire
from glowd.daemon.wire.telemetry import Snapshot
from glowd.daemon.wire.totals import BUCKETS_S, Totals, VoiceTotals
from tests.harness.router import HOP, RATE, RouterHarness, mel_message

MS = 1_000_000


def totals(harness: RouterHarness) -> Totals:
    """As a client reads them."""
    return Snapshot.from_map(harness.snapshots.take().to_map()).totals


def glow(harness: RouterHarness) -> VoiceTotals:
    return totals(harness).voices["glow"]


def speak(harness: RouterHarness, stream: str, wait_ms: int = 20) -> None:
    """Four frames, which are rendered after some time."""
    harness.send(b"a", mel_message(stream), wire.End(stream, 0, 4))
    session, at_ns = harness.session(stream), harness.now_ns
    key = session.state.utterance.key
    session.engine.pcm(
        ipc.Pcm(
            key, 0, 4 * HOP, last=True, frames_done=4, t_client_ns=at_ns - MS, t_gateway_ns=at_ns, t_engine_ns=at_ns,
            t_due_ns=at_ns, t_start_ns=at_ns + 2 * MS, t_end_ns=at_ns + 5 * MS, batch=1, audio=np.zeros(4 * HOP, np.float32),
        ),
        at_ns + wait_ms * MS,
    )  # fmt: skip


@pytest.fixture
def harness() -> RouterHarness:
    found = RouterHarness("server.max_streams=2")
    found.connect(b"a")
    return found


def test_bound_belongs_to_the_bucket_before_it() -> None:
    durations = Durations()
    for duration_ms in (0.5, 1.0, 1.1, 640, 641, 5000):
        durations.add(round(duration_ms * MS))
    record = durations.record()
    assert record.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2] and len(record.counts) == len(BUCKETS_S) + 1
    assert record.sum_s == pytest.approx(6.2836)


def test_audio_and_times_of_a_voice_outlast_the_streams(harness: RouterHarness) -> None:
    for stream in ("one", "two"):
        harness.open(b"a", stream)
        speak(harness, stream)
        harness.send(b"a", wire.Close(stream))
    found = glow(harness)
    assert found.audio_s == pytest.approx(2 * 4 * HOP / RATE)
    assert found.first_audio.counts[4] == 2 and found.first_audio.sum_s == pytest.approx(0.04)
    assert {name: sum(stage.counts) for name, stage in found.stages.items()} == dict.fromkeys(
        ("client", "transport", "wait", "network", "return"), 2
    )
    assert found.stages["network"].sum_s == pytest.approx(0.006)


def test_endings_are_counted(harness: RouterHarness) -> None:
    assert totals(harness).voices == {}
    harness.open(b"a", "one")
    assert glow(harness).utterances == {"played": 0, "flushed": 0, "failed": 0, "closed": 0}
    speak(harness, "one")
    harness.send(b"a", mel_message("one", generation=1), wire.Flush("one", 1))
    harness.send(b"a", mel_message("one", generation=2))
    harness.session("one").engine.failed(Code.INTERNAL, "no")
    harness.send(b"a", mel_message("one", generation=3), wire.Close("one"))
    assert glow(harness).utterances == {"played": 1, "flushed": 1, "failed": 1, "closed": 1}


def test_gaps_are_counted_by_whose_fault(harness: RouterHarness) -> None:
    harness.open(b"a", "one", "device")
    harness.send(b"a", mel_message("one"))
    session = harness.session("one")
    key = session.state.utterance.key
    session.sinks.underrun(ipc.Underrun(key, 0, RATE // 2, harness.now_ns, by_device=True))
    found = totals(harness)
    assert found.starved_s == {"client": 0.0, "engine": 0.0, "device": pytest.approx(0.5, rel=1e-3)}
    assert found.gaps == {"client": 0, "engine": 0, "device": 1}


def test_refused_streams_are_counted_by_reason(harness: RouterHarness) -> None:
    assert set(totals(harness).refused.values()) == {0}
    for stream in "abc":
        harness.send(b"a", wire.Open(stream, sinks=["null"]))
    harness.send(b"a", wire.Open("a"))
    found = totals(harness).refused
    assert (found["AT_CAPACITY"], found["STREAM_EXISTS"], found["UNKNOWN_VOICE"]) == (1, 1, 0)
