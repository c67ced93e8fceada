"""What the gateway does when engines, speakers and other daemons come, go and misbehave."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from glowd.daemon import ipc, wire
from glowd.daemon.runtime.sockets import CLIENT_QUEUE
from glowd.daemon.wire import Code
from tests.daemon.fake_roles import HOP, FakeEngine, FakeSpeaker, frames, rendered
from tests.daemon.gateway.gateway_rig import (
    ROOT,
    GatewayRig,
    RawClient,
    Utterance,
    end,
    mels,
    running_all,
    running_gateway,
    start_gateway,
)
from tests.patience import WAIT_S, measured, until

Everything = tuple[GatewayRig, FakeEngine, FakeSpeaker]


@pytest.fixture
def everything() -> Iterator[Everything]:
    with running_all() as running:
        yield running


def test_streams_survive_an_engine_that_dies_and_lose_and_repeat_nothing(everything: Everything) -> None:
    rig, engine, _ = everything
    spoken = [Utterance(rig.endpoint, f"s{seed}", frames(400, seed), 3, seed, pace_s=0.006) for seed in range(3)]
    starts: list[ipc.Start] = []
    for turn in (1, 2):
        until(lambda heard=40 * turn * HOP: all(one.samples > heard for one in spoken), "all are heard")  # type: ignore[misc]
        engine.crash()
        time.sleep(0.1)
        starts += engine.starts
        engine = FakeEngine(rig.run_dir)
    for one in spoken:
        one.check()
    assert any(start.first_frame > 0 for start in [*starts, *engine.starts]), "it went on in the middle"
    engine.crash()


def test_an_engine_that_is_hung_holds_its_streams_and_nobody_is_told_of_an_end(everything: Everything) -> None:
    rig, engine, _ = everything
    client = rig.client()
    opened = client.open("s", seed=2)
    engine.hold.set()
    client.send(*mels("s", frames(opened.credit_frames), 8))
    client.in_step()
    assert not any(isinstance(message, wire.Audio | wire.Credit) for message in client.said)
    engine.hold.clear()
    client.send(wire.End("s", 0, opened.credit_frames))
    client.expect(wire.Played)
    np.testing.assert_array_equal(client.audio(), rendered(2, frames(opened.credit_frames)))
    client.leave()


def test_a_speaker_that_dies_is_given_again_what_was_not_played(everything: Everything) -> None:
    rig, _, speaker = everything
    speaker.speed = 0.3  # it dies while it plays
    client = rig.client()
    client.open("s", "device", seed=4)
    client.send(*mels("s", frames(120), 8), wire.End("s", 0, 120))
    rig.when("playing", lambda info: info["streams"]["s"]["delivered_samples"] > 10 * HOP)
    speaker.crash()
    again = FakeSpeaker(rig.run_dir, heard=speaker.heard)
    assert client.expect(wire.Played).total_samples == 120 * HOP
    (heard,) = again.heard.values()
    np.testing.assert_array_equal(heard, rendered(4, frames(120)))
    again.crash()
    client.leave()


def test_without_a_device_its_streams_are_refused_with_the_reason_and_others_work() -> None:
    with running_all(device=False) as (rig, _, _):
        client = rig.client()
        assert client.welcome.sinks == ["socket", "file", "null"]
        client.send(wire.Open("s", sinks=["device"]))
        error = client.expect_error(Code.SINK_UNAVAILABLE, fatal=True)
        assert error.text == "no sound device: this machine offers no sound device" and error.stream == "s"
        assert (
            rig.when("told", lambda info: True)["roles"]["speaker"]["why_not"] == "this machine offers no sound device"
        )
        Utterance(rig.endpoint, "s", frames(50)).check()
        client.leave()


def test_without_an_engine_a_stream_is_refused_until_it_is_there() -> None:
    with running_gateway() as rig:
        client = rig.client()
        assert client.welcome.voices == [] and client.status()["state"] == "degraded"
        client.send(wire.Open("s", sinks=["null"]))
        assert "engine of voice 'glow' is not running now" in client.expect_error(Code.ENGINE_LOST, fatal=True).text
        engine = FakeEngine(rig.run_dir)
        rig.when("ready", lambda info: info["state"] == "ready")
        client.open("s", "null")
        engine.crash()
        client.leave()


def test_a_role_that_talks_nonsense_costs_no_stream_a_sample(everything: Everything) -> None:
    rig, _, _ = everything
    spoken = Utterance(rig.endpoint, "s", frames(300), pace_s=0.002)
    with zmq.Context() as context:
        for name, identity in (("engine", b"engine:other"), ("speaker", b"stranger")):
            with context.socket(zmq.DEALER) as socket:
                socket.setsockopt(zmq.IDENTITY, identity)
                socket.linger = 500
                socket.connect(f"ipc://{rig.run_dir}/{name}.ipc")
                socket.send_multipart([b"\xc1nonsense"])
                socket.send_multipart([b"", b"", b""])
                socket.send_multipart(ipc.encode(ipc.Failed(key=1, text="not yours")))
    spoken.check()


def test_an_engine_that_gives_up_a_stream_fails_only_that_one(everything: Everything) -> None:
    rig, engine, _ = everything
    other = Utterance(rig.endpoint, "other", frames(300), pace_s=0.002)
    client = rig.client()
    client.open("s")
    until(lambda: other.samples, "the other is heard")  # so that its first frames are not those that fail
    engine.fail_next("the network is tired")
    client.send(*mels("s", frames(8), 8))
    error = client.expect_error(Code.INTERNAL, fatal=True)
    assert error.text == "the engine gave up the stream: the network is tired" and error.generation == 0
    client.send(*mels("s", frames(8), 8, generation=1), wire.End("s", 1, 8))
    assert client.expect(wire.Played).generation == 1
    other.check()
    client.leave()


def test_when_the_daemon_stops_every_stream_is_told() -> None:
    with running_gateway() as rig:
        engine = FakeEngine(rig.run_dir)
        rig.when("ready", lambda info: info["state"] == "ready")
        client, idle = rig.client(), rig.client()
        client.open("s")
        client.send(*mels("s", frames(8), 8))
        client.expect(wire.Audio)
        rig.process.send_signal(signal.SIGTERM)
        assert client.expect_error(Code.STOPPING, fatal=True).stream == "s"
        for one in (client, idle):
            assert one.expect_error(Code.STOPPING, fatal=True).stream == ""
            one.kill()
        assert rig.process.wait(WAIT_S) == 0
        engine.crash()
        rig.process = start_gateway(rig.run_dir)  # what a dead one leaves behind is no obstacle
        assert rig.process.stdout is not None and "ready" in json.loads(rig.process.stdout.readline())


def test_a_client_that_outlives_the_gateway_is_told_to_say_hello_again(tmp_path: Path) -> None:
    first = start_gateway(tmp_path)
    assert first.stdout is not None and "ready" in json.loads(first.stdout.readline())
    client = GatewayRig(first, tmp_path).client()
    first.kill()
    first.communicate()
    second = start_gateway(tmp_path)
    assert second.stdout is not None and "ready" in json.loads(second.stdout.readline())
    client.send(wire.Ping(1))
    client.expect_error(Code.NO_HELLO, fatal=True)
    client.kill()
    end(second)


@pytest.mark.parametrize("setting", ["", "server.endpoint=tcp://127.0.0.1:{port}"])
def test_a_second_gateway_does_not_take_the_place_of_a_live_one(setting: str, unused_tcp_port: int) -> None:
    settings = [setting.format(port=unused_tcp_port)] if setting else []
    with running_gateway(*settings) as rig:
        if setting:
            rig.endpoint = f"tcp://127.0.0.1:{unused_tcp_port}"
        second = start_gateway(rig.run_dir, *settings)
        said, _ = second.communicate(timeout=WAIT_S)
        (failed,) = (json.loads(line)["failed"] for line in said.splitlines())
        assert "cannot listen on" in failed and "stop it, or use another endpoint" in failed
        assert second.returncode == 1
        rig.client().leave()


BUSY = """
import os, sys, time, zmq
from glowd.daemon.runtime.sockets import bind_clients
socket = bind_clients(zmq.Context.instance(), sys.argv[1], 1 << 20)
print("bound", flush=True)
sys.stdin.readline()
time.sleep(3)
read = 0
while socket.poll(200):
    socket.recv_multipart()
    read += 1
print(read, flush=True)
os._exit(0)
"""


def test_a_client_that_goes_while_more_waits_than_is_read_ends_nothing_but_itself(tmp_path: Path) -> None:
    """Its messages fill every queue and the gateway is busy for longer than any of its timers."""
    endpoint = f"ipc://{tmp_path}/busy.ipc"
    pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", BUSY, endpoint], cwd=ROOT, **pipes) as busy:
        try:
            assert busy.stdout and busy.stdout.readline() == "bound\n"
            flooding = RawClient(endpoint, greet=False)
            flooding.socket.sndtimeo = 200
            with pytest.raises(zmq.Again):
                while True:
                    flooding.send_parts(b"x" * 2000)
            flooding.kill()
            said, _ = busy.communicate("gone\n", timeout=WAIT_S)
            assert busy.returncode == 0 and int(said) >= CLIENT_QUEUE
        finally:
            busy.kill()


@contextlib.contextmanager
def flood(rig: GatewayRig) -> Iterator[None]:
    """A client that asks as fast as it can and reads no answer."""
    asking, over = rig.client(queue=1), threading.Event()
    asking.socket.sndtimeo = 100

    def ask() -> None:
        question = wire.encode(wire.Status())
        while not over.is_set():
            with contextlib.suppress(zmq.Again):
                asking.socket.send_multipart(question)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        asking.kill()


def test_a_flood_of_questions_delays_the_others_little_and_is_bounded(everything: Everything) -> None:
    rig, _, _ = everything

    def attempt() -> None:
        calm = Utterance(rig.endpoint, "calm", frames(100), pace_s=0.005)
        calm.check()
        before_bytes = rig.rss_bytes
        with flood(rig):
            spoken = Utterance(rig.endpoint, "s", frames(300), pace_s=0.005)
            spoken.check()
            # Of each half second the longest turn is told; a stall of the machine is in one of them, a flood in all.
            info = rig.when("quick", lambda info: (info["roles"]["gateway"]["turn_ms"] or 1000) < 200)
        turn_ms = info["roles"]["gateway"]["turn_ms"]
        p50, p99 = np.percentile(np.array(spoken.gateway_ns) / 1e6, [50, 99])
        calm_p99 = np.percentile(np.array(calm.gateway_ns) / 1e6, 99)
        print(
            f"beside a flood: p50 {p50:.1f} ms, p99 {p99:.1f} ms; turn {turn_ms:.1f} ms; p99 without {calm_p99:.1f} ms"
        )
        assert rig.rss_bytes - before_bytes <= 30e6
        # Where other work delays everybody, that is not the flood's doing.
        assert p50 <= max(30, 2 * calm_p99, 4 * turn_ms)

    measured(attempt)
