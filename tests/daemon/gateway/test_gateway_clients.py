"""A gateway process, and clients that are killed, that do not read, or that watch."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from glowd.daemon import wire
from glowd.daemon.wire.telemetry import Snapshot, SpeakerRole
from tests.fakes.roles import HOP, RATE, FakeEngine, FakeSpeaker, frames, rendered
from tests.harness.gateway import (
    ROOT,
    GatewayHarness,
    RawClient,
    UtteranceClient,
    mel_messages,
    running_all,
    start_gateway,
)
from tests.harness.waiting import WAIT_S, measured

Running = tuple[GatewayHarness, FakeEngine, FakeSpeaker]
KILLED = """
import sys
from glowd.daemon import wire
from glowd.daemon.wire.telemetry import Snapshot, SpeakerRole
from tests.fakes.roles import frames
from tests.harness.gateway import RawClient, mel_messages
client = RawClient(sys.argv[1], "killed")
client.open("k", "device", "socket")
client.send(*mel_messages("k", frames(100), 4))
client.expect(wire.Audio)
print("speaking", flush=True)
while True:
    client.next()
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_all("server.credit_ms=20000", "server.max_streams=2") as running:
        yield running


@pytest.fixture
def gateway(running: Running) -> GatewayHarness:
    return running[0]


@pytest.fixture
def client(gateway: GatewayHarness) -> Iterator[RawClient]:
    one = gateway.client()
    yield one
    one.leave()


def test_killed_client_frees_its_stream_and_falls_silent(running: Running, client: RawClient) -> None:
    gateway, engine, speaker = running
    speaker.speed = 0.5  # it is killed during playback
    other = UtteranceClient(gateway.endpoint, "other", frames(400), seed=2, pace_s=0.004)
    command = [sys.executable, "-c", KILLED, gateway.endpoint]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout and killed.stdout.readline() == "speaking\n"
            gateway.wait_for("heard", lambda found: len(speaker.tracks) == 1)
            (key,) = speaker.tracks
        finally:
            killed.send_signal(signal.SIGKILL)
    gateway.wait_for("rid of the stream", lambda found: "k" not in found.streams)
    gateway.wait_for("silent", lambda found: key in speaker.detached)
    speaker.speed = 4.0
    other.check()
    gateway.wait_for("rid of its frames", lambda found: key not in engine.streams)
    client.open("k", "null")


def test_owner_not_reading_loses_nothing_and_gets_no_credit(gateway: GatewayHarness) -> None:
    mel = frames(2200)
    slow = gateway.client(name="slow", queue=1)
    credit = slow.open("s", seed=3).credit_frames
    sent = [message for message in mel_messages("s", mel, 1) if isinstance(message, wire.Mel)]
    for message in sent[:credit]:
        slow.send(message)
    other = UtteranceClient(gateway.endpoint, "other", frames(300), seed=1)
    everything = (credit - 1) * HOP  # without the look-ahead
    found = gateway.wait_for("rendered", lambda found: found.streams["s"].made_samples == everything)
    assert (found.streams["s"].delivered_samples or 0) < everything
    other.check()
    at = credit
    while not any(isinstance(message, wire.Played) for message in slow.received):
        answer = slow.next()
        assert answer is not None, "nothing more arrives"
        if isinstance(answer, wire.Credit):
            new = sent[at : at + answer.frames] if answer.generation == 0 else []
            slow.send(*new)
            at += len(new)
            if new and at == len(mel):
                slow.send(wire.End("s", 0, at))
    np.testing.assert_array_equal(slow.audio(), rendered(3, mel))
    chunks = [message for message in slow.received if isinstance(message, wire.Audio)]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks))) and not any(chunk.gap for chunk in chunks)
    assert slow.errors() == []
    slow.leave()


def test_stream_at_speaking_pace_is_not_starved(gateway: GatewayHarness) -> None:
    def attempt() -> None:
        client = gateway.client()
        client.open("s", "socket")
        for message in mel_messages("s", frames(40), 4):
            client.send(message)
            time.sleep(4 * HOP / RATE)
        client.send(wire.End("s", 0, 40))
        client.expect(wire.Played)
        client.sync()
        client.leave()
        states = [message.state for message in client.received if isinstance(message, wire.State)]
        assert states == ["priming", "playing", "ending", "idle"]

    measured(attempt)


def test_telemetry_reaches_a_subscriber(gateway: GatewayHarness, client: RawClient) -> None:
    client.open("s", "socket")
    client.send(*mel_messages("s", frames(40), 4))
    while len(client.audio()) < 39 * HOP:  # all but the look-ahead
        client.expect(wire.Audio)
    with zmq.Context() as context, context.socket(zmq.SUB) as watcher:
        watcher.subscribe(b"")
        watcher.connect(f"ipc://{gateway.run_dir}/top.ipc")
        assert watcher.poll(1000 * WAIT_S)
        (part,) = watcher.recv_multipart()
    snapshot = Snapshot.from_map(msgpack.unpackb(part))
    assert (snapshot.state, snapshot.clients, snapshot.max_streams) == ("ready", 1, 2)
    assert set(snapshot.roles) == {"gateway", "engine:glow", "speaker"}
    speaker = snapshot.roles["speaker"]
    assert isinstance(speaker, SpeakerRole) and speaker.device == "fake"
    stream = snapshot.streams["s"]
    assert (stream.client, stream.sinks, stream.frames_in, stream.queue_frames) == ("raw", ["socket"], 40, 1)
    means = {name: times.mean_ms or 0 for name, times in stream.stages.times.items()}
    assert list(means) == ["client", "transport", "wait", "network", "return"], "the device does not play it"
    assert sum(means.values()) == pytest.approx(stream.stages.mean_sum_ms) and min(means.values()) >= 0
    assert stream.ttfa_ms and stream.rtf and stream.ttfa_ms > 0 and 0 < stream.rtf < 1


def test_gateway_ends_with_its_supervisor() -> None:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name, start_gateway(Path(name)) as process:
        assert process.stdin and process.stdout and "ready" in process.stdout.readline()
        client = RawClient(f"ipc://{name}/glowd.ipc")
        process.stdin.close()
        client.expect_error(wire.Code.STOPPING, fatal=True)
        client.kill()
        assert process.wait(WAIT_S) == 0
