"""The sockets of the gateway that other machines reach beside that of clients, whatever comes there: the others go on.

That of clients is attacked in tests/e2e/test_hostile.py.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import msgpack
import numpy as np
import pytest
import zmq

from glowd.clients.transport import connect
from glowd.daemon import engine_link, ipc, wire
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.fields import Message
from glowd.daemon.wire.ip_version import wants_ipv6
from glowd.daemon.wire.telemetry import VoiceInfo
from tests.harness.joining import free_port
from tests.harness.mutations import mutated
from tests.harness.own_gateway import OwnGateway, own_gateway

ENGINES, BATCH, PASSES = 60, 8, 2
"""Engines that come, messages of each, and passes of the gateway: an engine that is not understood is turned away soon."""


@pytest.fixture
def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[OwnGateway, Address]]:
    """A gateway that engines may join, and the address for one. Nothing is logged with a traceback."""
    caplog.set_level(logging.INFO)
    url, keys = f"tcp://127.0.0.1:{free_port()}", KeyFiles(tmp_path / "keys")
    with own_gateway(tmp_path, f"server.engines={url}", f"server.keys={keys.directory}") as gateway:
        yield gateway, Address(url, "", keys.new("pool", ["engine"]), keys.server()[0])
    assert not [record for record in caplog.get_records("call") if record.exc_info]


@contextlib.contextmanager
def connected(kind: int, address: Address) -> Iterator["zmq.Socket[bytes]"]:
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    connect(socket, address, wants_ipv6(address.url))
    with contextlib.closing(socket):
        yield socket


def goes_on(gateway: OwnGateway) -> None:
    """An utterance is spoken by the gateway's own engine."""
    name = f"after-{os.urandom(4).hex()}"
    gateway.open(gateway.one, name, "socket")
    mel = wire.mel_message(name, 0, 0, 0, np.full((12, 80), -4, np.float32))
    gateway.one.send(mel, wire.End(name, 0, 12))
    gateway.until(lambda: any(one.stream == name for one in gateway.one.all(wire.Played)), "its end")


def engine_messages(info: VoiceInfo, key: int, instance: int = 5) -> list[Message]:
    """What an engine says, of a stream that is placed elsewhere, and of none."""
    join = engine_link.Join(2, 1, "glow", "far", instance, "elsewhere", 4, 4, 16)
    audio = np.zeros(256, np.float32)
    return [
        join, join, ipc.Ready("glow", info, instance), ipc.Pcm(key, 0, 256, audio=audio),
        ipc.Pcm(3, 0, 256, last=True, audio=audio), ipc.Failed(key, "it cannot"), ipc.Load(ipc.EngineLoad(streams=1, busy=0.5)),
        engine_link.Echo(1, 2, 3), engine_link.Leaving(), engine_link.Joined(2, "glow/far"), engine_link.Dismissed(),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_an_engine_says_the_others_go_on(place: tuple[OwnGateway, Address], seed: int) -> None:
    gateway, address = place
    gateway.open(gateway.two, "s", "null")
    gateway.two.send(wire.mel_message("s", 0, 0, 0, np.full((12, 80), -4, np.float32)))
    info, key = gateway.gateway.engines["glow"].info, gateway.session("s").state.utterance.key
    messages = mutated(seed, [tuple(engine_link.encode(one)) for one in engine_messages(info, key)])
    for instance in range(ENGINES):
        with connected(zmq.DEALER, address) as engine:
            for one in engine_messages(info, key, instance)[1:3]:
                engine.send_multipart(engine_link.encode(one))
            gateway.until(lambda: engine.poll(0), "an answer")
            for parts in islice(messages, BATCH):
                engine.send_multipart(parts)
            for _ in range(PASSES):
                gateway.gateway.step()
    goes_on(gateway)


def test_whatever_a_subscriber_says_others_get_figures(place: tuple[OwnGateway, Address], tmp_path: Path) -> None:
    gateway, _ = place
    telemetry, random = Address(f"ipc://{tmp_path}/top.ipc", ""), Random(1)
    with connected(zmq.XSUB, telemetry) as hostile, connected(zmq.SUB, telemetry) as calm:
        calm.setsockopt(zmq.SUBSCRIBE, b"")
        for _ in range(500):
            first = random.choice((b"\x01", b"\x00", b"\x01", b"\x02", b""))
            hostile.send_multipart(
                [first + random.randbytes(random.choice((0, 1, 200, 5000))), *[b"x"] * random.randrange(3)]
            )
        calm.setsockopt(zmq.SUBSCRIBE, b"never")
        gateway.until(lambda: calm.poll(0), "figures")
        assert msgpack.unpackb(calm.recv())["clients"] == 2
    goes_on(gateway)
