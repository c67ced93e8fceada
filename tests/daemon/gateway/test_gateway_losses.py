"""A gateway process, and engines, speakers and gateways that crash, come back and misbehave."""

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
from glowd.daemon.wire.telemetry import GatewayRole, Snapshot
from tests.fakes.roles import HOP, FakeEngine, FakeSpeaker, frames, rendered
from tests.harness.gateway import (
    ROOT,
    GatewayHarness,
    RawClient,
    UtteranceClient,
    end,
    mel_messages,
    running_all,
    running_gateway,
    start_gateway,
)
from tests.harness.waiting import WAIT_S, measured, until

Running = tuple[GatewayHarness, FakeEngine, FakeSpeaker]


@pytest.fixture
def running() -> Iterator[Running]:
    with running_all("server.max_peer_requests_s=1000000", "server.max_peer_messages_s=1000000") as running:
        yield running


def test_streams_survive_engine_crashes_without_loss(running: Running) -> None:
    gateway, engine, _ = running
    spoken = [
        UtteranceClient(gateway.endpoint, f"s{seed}", frames(400, seed), 3, seed, pace_s=0.006) for seed in range(3)
    ]
    starts: list[ipc.Start] = []
    for turn in (1, 2):
        until(lambda samples=40 * turn * HOP: all(one.samples > samples for one in spoken), "all have audio")  # type: ignore[misc]
        engine.crash()
        time.sleep(0.1)
        starts += engine.starts
        engine = FakeEngine(gateway.run_dir)
    for one in spoken:
        one.check()
    assert any(start.first_frame > 0 for start in [*starts, *engine.starts]), "it continued in the middle"
    engine.crash()


def test_restarted_speaker_gets_what_was_not_played(running: Running) -> None:
    gateway, _, speaker = running
    speaker.speed = 0.3  # it crashes during playback
    client = gateway.client()
    client.open("s", "device", seed=4)
    client.send(*mel_messages("s", frames(120), 8), wire.End("s", 0, 120))
    gateway.wait_for("playing", lambda found: (found.streams["s"].delivered_samples or 0) > 10 * HOP)
    speaker.crash()
    again = FakeSpeaker(gateway.run_dir, heard=speaker.heard)
    assert client.expect(wire.Played).total_samples == 120 * HOP
    (heard,) = again.heard.values()
    np.testing.assert_array_equal(heard, rendered(4, frames(120)))
    again.crash()
    client.leave()


def test_stream_without_engine_is_refused_until_it_starts() -> None:
    with running_gateway() as gateway:
        client = gateway.client()
        assert client.welcome.voices == [] and client.status().state == "loading"
        client.send(wire.Open("s", sinks=["null"]))
        assert (
            client.expect_error(Code.ENGINE_LOST, fatal=True).text
            == "voice 'glow' is loading; try again in some seconds"
        )
        engine = FakeEngine(gateway.run_dir)
        gateway.wait_for("ready", lambda found: found.state == "ready")
        client.open("s", "null")
        engine.crash()
        client.leave()


def test_nonsense_from_other_processes_costs_no_sample(running: Running) -> None:
    gateway, _, _ = running
    spoken = UtteranceClient(gateway.endpoint, "s", frames(300), pace_s=0.002)
    with zmq.Context() as context:
        for name, identity in (("engine", b"engine:other"), ("speaker", b"stranger")):
            with context.socket(zmq.DEALER) as socket:
                socket.setsockopt(zmq.IDENTITY, identity)
                socket.linger = 500
                socket.connect(f"ipc://{gateway.run_dir}/{name}.ipc")
                socket.send_multipart([b"\xc1nonsense"])
                socket.send_multipart([b"", b"", b""])
                socket.send_multipart(ipc.encode(ipc.Failed(key=1, text="not yours")))
    spoken.check()


def test_engine_failure_of_one_stream_fails_only_that_one(running: Running) -> None:
    gateway, engine, _ = running
    other = UtteranceClient(gateway.endpoint, "other", frames(300), pace_s=0.002)
    client = gateway.client()
    client.open("s")
    until(lambda: other.samples, "the other has audio")  # so that its first frames do not fail
    engine.fail_next("the network is tired")
    client.send(*mel_messages("s", frames(8), 8))
    error = client.expect_error(Code.INTERNAL, fatal=True)
    assert error.text == "the engine gave up the stream: the network is tired" and error.generation == 0
    client.send(*mel_messages("s", frames(8), 8, generation=1), wire.End("s", 1, 8))
    assert client.expect(wire.Played).generation == 1
    other.check()
    client.leave()


def test_stopping_gateway_informs_every_client() -> None:
    with running_gateway() as gateway:
        engine = FakeEngine(gateway.run_dir)
        gateway.wait_for("ready", lambda found: found.state == "ready")
        client, idle = gateway.client(), gateway.client()
        client.open("s")
        client.send(*mel_messages("s", frames(8), 8))
        client.expect(wire.Audio)
        gateway.process.send_signal(signal.SIGTERM)
        assert client.expect_error(Code.STOPPING, fatal=True).stream == "s"
        for one in (client, idle):
            assert one.expect_error(Code.STOPPING, fatal=True).stream == ""
            one.kill()
        assert gateway.process.wait(WAIT_S) == 0
        engine.crash()
        gateway.process = start_gateway(gateway.run_dir)  # what the one before left behind is no obstacle
        assert gateway.process.stdout is not None and "ready" in json.loads(gateway.process.stdout.readline())


def test_restarted_gateway_asks_clients_for_hello(tmp_path: Path) -> None:
    first = start_gateway(tmp_path)
    assert first.stdout is not None and "ready" in json.loads(first.stdout.readline())
    client = GatewayHarness(first, tmp_path).client()
    first.kill()
    first.communicate()
    second = start_gateway(tmp_path)
    assert second.stdout is not None and "ready" in json.loads(second.stdout.readline())
    client.send(wire.Ping(1))
    client.expect_error(Code.NO_HELLO, fatal=True)
    client.kill()
    end(second)


@pytest.mark.parametrize("setting", ["", "server.endpoint=tcp://127.0.0.1:{port}"])
def test_second_gateway_on_same_endpoint_fails(setting: str, unused_tcp_port: int) -> None:
    settings = [setting.format(port=unused_tcp_port), "server.plain_tcp=true"] if setting else []
    with running_gateway(*settings) as gateway:
        if setting:
            gateway.endpoint = f"tcp://127.0.0.1:{unused_tcp_port}"
        second = start_gateway(gateway.run_dir, *settings)
        said, _ = second.communicate(timeout=WAIT_S)
        (failed,) = (json.loads(line)["failed"] for line in said.splitlines())
        assert "cannot listen on" in failed and "stop it, or use another endpoint" in failed
        assert second.returncode == 1
        gateway.client().leave()


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


def test_client_leaving_full_queues_ends_only_itself(tmp_path: Path) -> None:
    """Its messages fill every queue, and the gateway is busy for longer than any of its timers."""
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


def pass_ms(found: Snapshot) -> float:
    """The longest pass of the gateway's loop; long if it was not measured yet."""
    role = found.roles["gateway"]
    return role.turn_ms or 1000 if isinstance(role, GatewayRole) else 1000


@contextlib.contextmanager
def flood(gateway: GatewayHarness) -> Iterator[None]:
    """A client that sends `status` as fast as it can and reads no answer."""
    asking, over = gateway.client(queue=1), threading.Event()
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


def test_flood_of_requests_delays_others_little(running: Running) -> None:
    gateway, _, _ = running

    def attempt() -> None:
        calm = UtteranceClient(gateway.endpoint, "calm", frames(100), pace_s=0.005)
        calm.check()
        before_bytes = gateway.rss_bytes
        with flood(gateway):
            spoken = UtteranceClient(gateway.endpoint, "s", frames(300), pace_s=0.005)
            spoken.check()
            # The longest pass of each half second is reported. A stall of the machine is in one of them, a flood in all.
            turn_ms = pass_ms(gateway.wait_for("quick", lambda found: pass_ms(found) < 200))
        p50, p99 = np.percentile(np.array(spoken.gateway_ns) / 1e6, [50, 99])
        calm_p99 = np.percentile(np.array(calm.gateway_ns) / 1e6, 99)
        print(
            f"beside a flood: p50 {p50:.1f} ms, p99 {p99:.1f} ms; turn {turn_ms:.1f} ms; p99 without {calm_p99:.1f} ms"
        )
        assert gateway.rss_bytes - before_bytes <= 30e6
        # Other work on the machine delays everybody, which is not due to the flood.
        assert p50 <= max(30, 2 * calm_p99, 4 * turn_ms)

    measured(attempt)
