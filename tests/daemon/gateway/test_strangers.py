"""Strangers at the sockets for engines and for the telemetry: who is too many, or subscribes without end, is shut out."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import zmq

from glowd.daemon.gateway.clients.visitors import MAX_STRANGERS
from tests.harness.gateway import GatewayHarness, running_gateway
from tests.harness.joined_gateway import engine_of, running_place
from tests.harness.joining import free_port
from tests.harness.waiting import WAIT_S, until

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(23, b"\0") + bytes(32)
"""Of ZMTP 3.0: whoever sends it and nothing more leaves a handshake half open."""


def is_open(stranger: socket.socket) -> bool:
    """Whether the other side has not ended the connection; what it has sent is read."""
    try:
        while data := stranger.recv(4096):
            assert data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def test_strangers_at_the_port_for_engines_are_bounded() -> None:
    with running_place() as place, contextlib.ExitStack() as stack:
        engine = place.join("calm")
        port, strangers = int(place.url.rpartition(":")[2]), []
        began_s = time.monotonic()
        for number in range(2 * MAX_STRANGERS):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_S))
            if number % 2:
                stranger.sendall(GREETING)
            stranger.setblocking(False)
            strangers.append(stranger)
        until(lambda: sum(map(is_open, strangers)) <= MAX_STRANGERS, "that the others are shut out")
        assert time.monotonic() - began_s < 2, "and not because their handshake took too long"
        place.join("late")
        assert engine_of(place.client().status(), engine).ready


@pytest.fixture
def watched() -> Iterator[tuple[GatewayHarness, str]]:
    url = f"tcp://127.0.0.1:{free_port()}"
    with running_gateway(f"server.telemetry={url}", "server.plain_tcp=true") as gateway:
        yield gateway, url


def test_who_subscribes_without_end_is_shut_out(watched: tuple[GatewayHarness, str]) -> None:
    """Slowly: what a flood of bytes does is tested with the other sockets."""
    _, url = watched
    with zmq.Context() as context, context.socket(zmq.SUB) as calm, context.socket(zmq.XSUB) as greedy:
        for one in (calm, greedy):
            one.setsockopt(zmq.LINGER, 0)
        greedy.setsockopt(zmq.RECONNECT_IVL, -1)
        monitor = greedy.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        calm.connect(url)
        calm.subscribe(b"")
        greedy.connect(url)
        number = 0
        until_s = time.monotonic() + WAIT_S
        while not monitor.poll(20):
            assert time.monotonic() < until_s, "it is never shut out"
            greedy.send(b"\x01topic-%d" % number)
            number += 1
        assert number > 60, "as many as anybody needs are allowed"
        assert calm.poll(1000 * WAIT_S)
        greedy.disable_monitor()
        monitor.close()
