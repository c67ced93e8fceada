"""A gateway process and clients that are killed, that do not read, or that only watch."""

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
from tests.daemon.fake_roles import HOP, RATE, FakeEngine, FakeSpeaker, frames, rendered
from tests.daemon.gateway.gateway_rig import ROOT, GatewayRig, RawClient, Utterance, mels, running_all, start_gateway
from tests.patience import WAIT_S, measured

Everything = tuple[GatewayRig, FakeEngine, FakeSpeaker]
KILLED = """
import sys
from glowd.daemon import wire
from tests.daemon.fake_roles import frames
from tests.daemon.gateway.gateway_rig import RawClient, mels
client = RawClient(sys.argv[1], "killed")
client.open("k", "device", "socket")
client.send(*mels("k", frames(100), 4))
client.expect(wire.Audio)
print("speaking", flush=True)
while True:
    client.next()
"""


@pytest.fixture(scope="module")
def everything() -> Iterator[Everything]:
    with running_all("server.credit_ms=20000", "server.max_streams=2") as running:
        yield running


@pytest.fixture
def rig(everything: Everything) -> GatewayRig:
    return everything[0]


@pytest.fixture
def client(rig: GatewayRig) -> Iterator[RawClient]:
    one = rig.client()
    yield one
    one.leave()


def test_a_client_that_is_killed_frees_its_place_and_falls_silent(everything: Everything, client: RawClient) -> None:
    rig, engine, speaker = everything
    speaker.speed = 0.5  # it is killed while it is heard
    other = Utterance(rig.endpoint, "other", frames(400), seed=2, pace_s=0.004)
    command = [sys.executable, "-c", KILLED, rig.endpoint]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        try:
            assert killed.stdout and killed.stdout.readline() == "speaking\n"
            rig.when("heard", lambda info: len(speaker.tracks) == 1)
            (key,) = speaker.tracks
        finally:
            killed.send_signal(signal.SIGKILL)
    rig.when("rid of the stream", lambda info: "k" not in info["streams"])
    rig.when("silent", lambda info: key in speaker.detached)
    speaker.speed = 4.0
    other.check()
    rig.when("rid of its frames", lambda info: key not in engine.streams)
    client.open("k", "null")


def test_an_owner_that_does_not_read_loses_nothing_and_is_granted_nothing(rig: GatewayRig) -> None:
    mel = frames(2200)
    slow = rig.client(name="slow", queue=1)
    credit = slow.open("s", seed=3).credit_frames
    sent = [message for message in mels("s", mel, 1) if isinstance(message, wire.Mel)]
    for message in sent[:credit]:
        slow.send(message)
    other = Utterance(rig.endpoint, "other", frames(300), seed=1)
    info = rig.when("rendered", lambda info: info["streams"]["s"]["made_samples"] >= (credit - 1) * HOP)
    stalled = info["streams"]["s"]
    assert stalled["delivered_samples"] < stalled["made_samples"] == (credit - 1) * HOP
    other.check()
    at = credit
    while not any(isinstance(message, wire.Played) for message in slow.said):
        word = slow.next()
        assert word is not None, "it has stopped for ever"
        if isinstance(word, wire.Credit):
            new = sent[at : at + word.frames] if word.generation == 0 else []
            slow.send(*new)
            at += len(new)
            if new and at == len(mel):
                slow.send(wire.End("s", 0, at))
    np.testing.assert_array_equal(slow.audio(), rendered(3, mel))
    pieces = [message for message in slow.said if isinstance(message, wire.Audio)]
    assert [piece.seq for piece in pieces] == list(range(len(pieces))) and not any(piece.gap for piece in pieces)
    assert slow.errors() == []
    slow.leave()


def test_a_stream_at_the_pace_of_speech_is_not_called_starved(rig: GatewayRig) -> None:
    def attempt() -> None:
        client = rig.client()
        client.open("s", "socket")
        for message in mels("s", frames(40), 4):
            client.send(message)
            time.sleep(4 * HOP / RATE)
        client.send(wire.End("s", 0, 40))
        client.expect(wire.Played)
        client.in_step()
        client.leave()
        states = [message.state for message in client.said if isinstance(message, wire.State)]
        assert states == ["priming", "playing", "ending", "idle"]

    measured(attempt)


def test_telemetry_is_published_to_whoever_watches(rig: GatewayRig, client: RawClient) -> None:
    client.open("s", "socket")
    client.send(*mels("s", frames(40), 4))
    while len(client.audio()) < 39 * HOP:  # all but the look-ahead
        client.expect(wire.Audio)
    with zmq.Context() as context, context.socket(zmq.SUB) as watcher:
        watcher.subscribe(b"")
        watcher.connect(f"ipc://{rig.run_dir}/top.ipc")
        assert watcher.poll(1000 * WAIT_S)
        (part,) = watcher.recv_multipart()
    snapshot = msgpack.unpackb(part)
    assert (snapshot["state"], snapshot["clients"], snapshot["max_streams"]) == ("ready", 1, 2)
    assert set(snapshot["roles"]) == {"gateway", "engine:glow", "speaker"}
    assert snapshot["roles"]["speaker"]["device"] == "fake" and snapshot["roles"]["gateway"]["rss_bytes"] > 1e6
    stream = snapshot["streams"]["s"]
    assert (stream["client"], stream["sinks"], stream["frames_in"], stream["queue_frames"]) == (
        "raw",
        ["socket"],
        40,
        1,
    )
    stages = stream["stages"]
    measured = [stages[name]["mean_ms"] for name in ("client", "transport", "wait", "network", "return")]
    assert stages["device"] is None, "it is not heard on the device"
    assert sum(measured) == pytest.approx(stages["total"]["mean_ms"]) and min(measured) >= 0
    assert stream["ttfa_ms"] > 0 and 0 < stream["rtf"] < 1


def test_the_gateway_ends_with_its_supervisor() -> None:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name, start_gateway(Path(name)) as process:
        assert process.stdin and process.stdout and "ready" in process.stdout.readline()
        client = RawClient(f"ipc://{name}/glowd.ipc")
        process.stdin.close()
        client.expect_error(wire.Code.STOPPING, fatal=True)
        client.kill()
        assert process.wait(WAIT_S) == 0
