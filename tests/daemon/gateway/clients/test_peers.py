"""One peer cannot take every place: its clients and its streams are counted together."""

import os
import subprocess
import sys

import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.clients.peers import peer_of
from glowd.daemon.runtime.quotas import share_of
from glowd.daemon.runtime.sockets import Sender
from glowd.daemon.wire import Code
from tests.harness.gateway import ROOT, running_all
from tests.harness.router import RouterHarness
from tests.harness.waiting import WAIT_S

ONE, OTHER = "localhost:1000:1000:4711", "localhost:1000:1000:4712"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (ONE, "process 4711 of user 1000"),
        ("192.0.2.7", "the machine 192.0.2.7"),
        ("::1", "the machine ::1"),
        ("::ffff:192.0.2.7", "the machine 192.0.2.7"),
        ("2001:db8:0:1::5", "the network 2001:db8:0:1::/64"),
        ("fe80::5%eth0", "the network fe80::/64"),
        ("::5", "the network ::/64"),
        ("localhost:1000:1000:0", "this client"),
        ("", "this client"),
    ],
)
def test_peer_is_named_as_far_as_it_is_known(address: str, name: str) -> None:
    assert peer_of(Sender(address), b"id").name == name
    is_known = name != "this client"
    assert (peer_of(Sender(address), b"id") == peer_of(Sender(address), b"another")) == is_known


def test_addresses_of_one_network_are_one_peer() -> None:
    one, other = (peer_of(Sender(f"2001:db8::{number}"), b"id") for number in (1, "ffff:0:0:1"))
    assert one == other != peer_of(Sender("2001:db8:0:1::1"), b"id")
    assert peer_of(Sender("::ffff:192.0.2.7"), b"a") == peer_of(Sender("192.0.2.7"), b"b")


def test_two_keys_of_one_name_are_two_peers() -> None:
    first, renewed = (peer_of(Sender("192.0.2.7", key, key_name="desk"), b"id") for key in (b"\1" * 32, b"\2" * 32))
    assert first.key != renewed.key and first.name == renewed.name == "the key desk"
    assert peer_of(Sender("192.0.2.8", b"\1" * 32, key_name="desk"), b"another") == first


@pytest.mark.parametrize(
    ("places", "setting", "share"),
    [(16, 0, 12), (64, 0, 48), (1, 0, 1), (2, 0, 2), (4, 0, 3), (16, 5, 5), (16, 99, 99)],
)
def test_share_leaves_places_to_others(places: int, setting: int, share: int) -> None:
    assert share_of(places, setting) == share


def test_streams_of_one_process_are_limited_over_all_its_clients() -> None:
    harness = RouterHarness("server.max_streams=4")
    harness.addresses = {b"a": ONE, b"b": ONE, b"c": OTHER}
    harness.connect(b"a", b"b", b"c")
    for who, stream in ((b"a", "1"), (b"b", "2"), (b"a", "3")):
        harness.open(who, stream)
    error = harness.refused(b"b", wire.Open("4", sinks=["null"]), fatal=True)
    assert error.code == Code.AT_CAPACITY and error.text == (
        "process 4711 of user 1000 has 3 streams open, the most for one peer (server.max_peer_streams); close one, or try "
        "again later"
    )
    harness.open(b"c", "5")
    harness.send(b"c", wire.Close("5"))
    harness.send(b"a", wire.Close("1"))
    harness.open(b"b", "4")


def test_clients_of_one_process_are_limited() -> None:
    harness = RouterHarness("server.max_clients=8", "server.max_peer_clients=2")
    harness.addresses = {b"a": ONE, b"b": ONE, b"c": ONE, b"d": OTHER}
    harness.connect(b"a", b"b", b"d")
    error = harness.refused(b"c", wire.Hello("c"), fatal=True)
    assert error.code == Code.TOO_MANY_CLIENTS and error.text == (
        "process 4711 of user 1000 has 2 clients connected, the most for one peer (server.max_peer_clients); close one, or "
        "use one client for several streams"
    )
    harness.send(b"a", wire.Bye())
    harness.connect(b"c")


def test_unknown_peers_are_limited_each_for_itself() -> None:
    harness = RouterHarness("server.max_streams=8", "server.max_peer_streams=1")
    harness.connect(b"a", b"b")
    harness.open(b"a", "1")
    harness.open(b"b", "2")
    assert harness.refused(b"b", wire.Open("3", sinks=["null"]), fatal=True).code == Code.AT_CAPACITY


OTHER_PROCESS = """
import sys
from glowd.clients import Client
with Client(sys.argv[1], timeout_s=60) as client, client.open(sinks=["null"]) as stream:
    print(stream.voice)
"""


@pytest.mark.process
def test_another_process_finds_a_place_at_a_local_socket() -> None:
    with running_all("server.max_streams=8", "server.max_peer_streams=2") as (gateway, _, _):
        one, two = gateway.client(), gateway.client()
        one.open("1", "null")
        two.open("2", "null")
        one.send(wire.Open("3", sinks=["null"]))
        assert (
            f"process {os.getpid()} of user {os.getuid()} has 2" in one.expect_error(Code.AT_CAPACITY, fatal=True).text
        )
        command = [sys.executable, "-c", OTHER_PROCESS, gateway.endpoint]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
        assert done.stdout == "glow\n", done.stderr
        one.leave()
        two.leave()
