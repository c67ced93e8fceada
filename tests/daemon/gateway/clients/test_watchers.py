"""Who reads the telemetry from other machines can neither send without end nor have much of it kept; others go on."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glowd.daemon.gateway.clients.visitors import STRANGER_BYTES
from tests.harness.hostile import ENDLESS, NULL, SUB_READY, is_ended, shake_hands
from tests.harness.joining import free_port
from tests.harness.own_gateway import OwnGateway, own_gateway

STEP_NS, STEPS = 250_000_000, 40
TOPIC_BYTES = 4000


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def gateway(tmp_path: Path, endpoint: str) -> Iterator[OwnGateway]:
    with own_gateway(tmp_path, f"server.telemetry={endpoint}", "server.plain_tcp=true") as made:
        yield made


@pytest.fixture
def calm(gateway: OwnGateway, endpoint: str) -> "Iterator[zmq.Socket[bytes]]":
    """Somebody else who watches, and may not be disturbed."""
    found: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    with contextlib.closing(found) as made:
        made.setsockopt(zmq.LINGER, 0)
        with made.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            made.connect(endpoint)
            made.subscribe(b"")
            gateway.until(lambda: made.poll(0), "figures")
            try:
                yield made
                goes_on(gateway, made)
                assert not monitor.poll(0), "it was cut off"
            finally:
                made.disable_monitor()


def goes_on(gateway: OwnGateway, watcher: "zmq.Socket[bytes]") -> None:
    for _ in range(STEPS):
        gateway.time.ahead_ns += STEP_NS
        gateway.gateway.step()
    while watcher.poll(0):
        watcher.recv()
    gateway.until(lambda: watcher.poll(0), "more figures")


def send(one: socket.socket, sent: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        one.sendall(sent)


@pytest.mark.usefixtures("calm")
def test_message_that_never_ends_is_cut_off(gateway: OwnGateway, endpoint: str) -> None:
    with contextlib.closing(shake_hands(endpoint, NULL + SUB_READY)) as endless:
        send(endless, ENDLESS * (2 * STRANGER_BYTES // len(ENDLESS)))
        gateway.until(lambda: is_ended(endless), "its end")


@pytest.mark.usefixtures("calm")
def test_few_subscriptions_may_not_be_long(gateway: OwnGateway, endpoint: str) -> None:
    frame = b"\x02" + (TOPIC_BYTES + 1).to_bytes(8, "big") + b"\x01"
    with contextlib.closing(shake_hands(endpoint, NULL + SUB_READY)) as greedy:
        for number in range(STRANGER_BYTES // TOPIC_BYTES + 1):
            send(greedy, frame + str(number).encode().ljust(TOPIC_BYTES, b"x"))
        gateway.until(lambda: is_ended(greedy), "its end")
