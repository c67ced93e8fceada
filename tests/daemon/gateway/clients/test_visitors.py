"""Connections without a client are few and do not last; clients are left alone."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glowd.daemon import wire
from glowd.daemon.gateway.clients.visitors import HELLO_NS, MAX_STRANGERS, PARTING_NS, STRANGER_BYTES
from tests.e2e.test_remote import free_port
from tests.harness.hostile import ENDLESS, HALF_OPEN, IDLE, NULL, READY, dial, is_ended, shake_hands
from tests.harness.own_gateway import OwnClient, OwnGateway, own_gateway

SECOND_NS, STEP_NS = 1_000_000_000, 250_000_000
"""The gateway takes a longer time between two passes for an absence of its own."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[OwnGateway]:
    with own_gateway(tmp_path) as made:
        yield made


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/glowd.ipc"


def connections(endpoint: str, count: int, first: bytes = b"") -> list[socket.socket]:
    """Some that say nothing but this."""
    made = [dial(endpoint) for _ in range(count)]
    for one in made:
        one.sendall(first)
    return made


def wait(gateway: OwnGateway, time_ns: int) -> None:
    """The gateway runs for so long; its engine and speaker answer meanwhile, and its clients ping."""
    for _ in range(time_ns // STEP_NS):
        for client in gateway.clients:
            client.send(wire.Ping(1))
        gateway.time.ahead_ns += STEP_NS
        gateway.gateway.step()
        for client in gateway.clients:
            client.read()


def ping(gateway: OwnGateway, client: OwnClient) -> None:
    """The client is one still."""
    before = len(client.all(wire.Pong))
    client.send(wire.Ping(5))
    gateway.until(lambda: len(client.all(wire.Pong)) > before or client.all(wire.Error), "a pong")
    assert client.all(wire.Error) == []


@pytest.mark.parametrize("first", dict.fromkeys((*HALF_OPEN, *IDLE)), ids=len)
def test_connection_without_hello_is_ended(gateway: OwnGateway, endpoint: str, first: bytes) -> None:
    known = len(gateway.gateway.visitors)
    (silent,) = connections(endpoint, 1, first)
    with contextlib.closing(silent):
        gateway.until(lambda: len(gateway.gateway.visitors) > known or is_ended(silent), "the connection")
        assert first != b"" or not is_ended(silent)
        wait(gateway, HELLO_NS - 2 * SECOND_NS)
        assert len(gateway.gateway.visitors) > known or is_ended(silent), "it has its time, but for its handshake"
        wait(gateway, 4 * SECOND_NS)
        gateway.until(lambda: is_ended(silent), "its end")
        gateway.until(lambda: len(gateway.gateway.visitors) == known, "nothing is left of it")
    for client in gateway.clients:
        ping(gateway, client)


def test_client_that_comes_during_a_pass_is_no_stranger(gateway: OwnGateway, endpoint: str) -> None:
    """Its hello is read before the monitor tells of its connection."""
    newcomer = OwnClient(endpoint, "newcomer")
    assert gateway.gateway._client_socket.poll(60_000)
    assert gateway.gateway._read_clients()
    gateway.clients.append(newcomer)
    wait(gateway, HELLO_NS + 2 * SECOND_NS)
    ping(gateway, newcomer)


def test_too_many_strangers_end_the_oldest_of_them(gateway: OwnGateway, endpoint: str) -> None:
    visitors, known = gateway.gateway.visitors, len(gateway.clients)
    first = connections(endpoint, MAX_STRANGERS)
    gateway.until(lambda: len(visitors) == known + MAX_STRANGERS, "they are there")
    later = connections(endpoint, 300)
    gateway.until(lambda: all(map(is_ended, first)), "the first have made room")
    gateway.until(lambda: sum(map(is_ended, later)) == 300 - MAX_STRANGERS, "as many are left as may be")
    assert not is_ended(later[-1])
    newcomer = OwnClient(endpoint, "newcomer")
    gateway.clients.append(newcomer)
    gateway.until(lambda: newcomer.all(wire.Welcome), "a client comes in all the same")
    for client in gateway.clients:
        ping(gateway, client)
    for one in (*first, *later):
        one.close()
    gateway.until(lambda: len(visitors) == known + 1, "they are gone")


def test_client_that_is_no_client_more_is_ended(gateway: OwnGateway) -> None:
    visitors, one = gateway.gateway.visitors, gateway.one
    one.send(wire.Bye())
    gateway.until(lambda: len(gateway.gateway.router.clients) == 1, "it left")
    one.send(wire.Hello("one"))
    gateway.until(lambda: len(one.all(wire.Welcome)) == 2, "it came back in time")
    wait(gateway, 2 * PARTING_NS)
    ping(gateway, one)
    one.send(wire.Bye())
    gateway.until(lambda: len(gateway.gateway.router.clients) == 1, "it left again")
    (connection,) = (found for found in visitors.strangers.values())
    wait(gateway, 2 * PARTING_NS)
    gateway.until(lambda: all(found is not connection for found in visitors.strangers.values()), "its connection ended")
    ping(gateway, gateway.two)


def test_absence_of_the_gateway_is_no_ones_silence(gateway: OwnGateway, endpoint: str) -> None:
    known = len(gateway.gateway.visitors)
    (silent,) = connections(endpoint, 1)
    gateway.until(lambda: len(gateway.gateway.visitors) > known, "the connection")
    gateway.time.ahead_ns += 2 * HELLO_NS
    wait(gateway, HELLO_NS - 2 * SECOND_NS)
    assert not is_ended(silent)
    wait(gateway, 4 * SECOND_NS)
    gateway.until(lambda: is_ended(silent), "its end")
    silent.close()


def test_message_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with own_gateway(tmp_path, f"server.endpoint={endpoint}", "server.plain_tcp=true") as gateway:
        greeted = OwnClient(endpoint, "greeted")
        gateway.clients.append(greeted)
        gateway.until(lambda: greeted.all(wire.Welcome), "a client by TCP")
        parts = 40 * [*wire.encode(wire.Ping(1)), bytes(40_000)]
        for number in range(10):
            greeted.socket.send_multipart(parts)
            gateway.until(lambda: len(greeted.all(wire.Error)) > number, "much, in messages that end")  # noqa: B023
        assert greeted.all(wire.Welcome)[1:] == [], "it was not cut off"
        with contextlib.closing(shake_hands(endpoint, NULL + READY)) as endless, contextlib.suppress(ConnectionError):
            endless.sendall(ENDLESS * (2 * STRANGER_BYTES // len(ENDLESS)))
            gateway.until(lambda: is_ended(endless), "its end")
        greeted.received.clear()
        ping(gateway, greeted)


def test_stranger_over_its_quota_is_told_before_its_end(tmp_path: Path) -> None:
    with own_gateway(tmp_path, "server.max_peer_messages_s=20") as gateway, zmq.Context() as context:
        stranger = context.socket(zmq.DEALER)
        with stranger, contextlib.closing(stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as monitor:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(f"ipc://{tmp_path}/glowd.ipc")
            for _ in range(300):
                stranger.send_multipart(wire.encode(wire.Ping(1)))
            gateway.until(lambda: monitor.poll(0), "its end")
            told = []
            while stranger.poll(100):
                told.append(wire.decode(stranger.recv_multipart(), wire.CLIENT_LIMITS))
            stranger.disable_monitor()
    texts = [message.text for message in told if isinstance(message, wire.Error)]
    assert any("if it goes on, it is disconnected" in text for text in texts)
    assert any("went on after it was told" in text for text in texts)
