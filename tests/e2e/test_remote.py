"""A daemon that other machines reach: by keys alone, within their roles, until they are revoked."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from glowd.clients import Client, errors
from glowd.daemon.runtime.keys import keypair
from glowd.daemon.wire import Code
from glowd.daemon.wire.address import Address, address_of
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S

MEL = speech()[:60]
VOICE = "voices={rtisi={engine='rtisi-la',max_streams=16}}"


def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bound:
        return bound.bind_to_random_port("tcp://127.0.0.1")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str, str]]:
    """A daemon with tcp:// addresses: for clients, and of its telemetry."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    clients, telemetry = f"tcp://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    settings = (f"server.endpoint={clients}", f"server.telemetry={telemetry}", f"server.keys={keys}", VOICE)
    with running_daemon(*settings) as daemon:
        yield daemon, clients, telemetry


def glowctl(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", daemon.endpoint, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)


def new_key(daemon: Daemon, name: str, *roles: str) -> str:
    """The address of a new key."""
    done = glowctl(daemon, "key", "new", name, *(word for role in roles for word in ("--role", role)))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def audio(client: Client) -> np.ndarray:
    with client.open(sinks=["socket"], seed=3) as stream:
        stream.send(MEL)
        stream.end()
        return np.concatenate([chunk.payload for chunk in stream.audio(WAIT_S)])


def test_key_is_all_that_a_client_needs(remote: tuple[Daemon, str, str]) -> None:
    daemon, clients, _ = remote
    address = new_key(daemon, "desk", "push")
    with Client(address, timeout_s=WAIT_S) as far, Client(daemon.endpoint) as near:
        np.testing.assert_array_equal(audio(far), audio(near))
        assert far.endpoint == f"glowd://desk@{clients.removeprefix('tcp://')}"


def test_nobody_else_is_let_in(remote: tuple[Daemon, str, str]) -> None:
    daemon, clients, _ = remote
    right = address_of(new_key(daemon, "right", "push"))
    other = keypair()
    for text, why in (
        (clients, "use the address that `glowctl key new` prints"),  # without encryption
        (Address(clients, "", other[1], right.server_key).text("stranger"), "it was revoked, or is unknown"),
        (Address(clients, "", right.secret, other[0]).text("right"), "the address is another daemon's"),
    ):
        with pytest.raises(errors.NotRunning, match=why):
            Client(text, timeout_s=1.5)
    with Client(daemon.endpoint) as near:
        assert len(audio(near)) == len(MEL) * 256


def test_roles_are_kept(remote: tuple[Daemon, str, str]) -> None:
    daemon, _, _ = remote
    pusher, watcher = new_key(daemon, "pusher", "push"), new_key(daemon, "watcher", "listen news-*", "metrics")
    with Client(pusher, timeout_s=WAIT_S) as one, Client(watcher, timeout_s=WAIT_S) as two:
        with pytest.raises(errors.Refused, match="needs the role 'metrics', which the key pusher has not") as caught:
            one.status()
        assert caught.value.code == Code.NOT_ALLOWED
        with pytest.raises(errors.Refused, match="needs the role 'push'"):
            two.open(sinks=["socket"])
        assert two.status().info["state"]
        with one.open("news-1", sinks=["null"]) as stream, two.listen("news-1") as listener:
            heard: list[int] = []
            listening = threading.Thread(target=lambda: heard.append(next(listener.audio(WAIT_S)).samples))
            listening.start()
            while not heard:  # frames that were sent before it listened were not for it
                stream.send(MEL[:8])
            stream.flush()
        listening.join()


def test_revoked_key_counts_no_more_and_others_go_on(remote: tuple[Daemon, str, str]) -> None:
    daemon, _, _ = remote
    gone, stays = new_key(daemon, "gone", "push"), new_key(daemon, "stays", "push")
    with Client(stays, timeout_s=WAIT_S) as other:
        lost = Client(gone, timeout_s=WAIT_S, reconnect_s=0)
        assert "gone" in glowctl(daemon, "key", "list").stdout
        assert glowctl(daemon, "key", "revoke", "gone").returncode == 0
        with pytest.raises(errors.GlowdError, match="gone was revoked"):
            for _ in range(10_000):
                audio(lost)
        lost.close()
        for _ in range(3):  # the end of the connection, which follows, does not hide the reason
            with pytest.raises(errors.NotRunning, match=r"does not let this key in.*\(glowctl key new\)$"):
                Client(gone, timeout_s=1.5)
        assert len(audio(other)) == len(MEL) * 256
    assert "gone" not in glowctl(daemon, "key", "list").stdout
    assert "there is no key 'gone'" in glowctl(daemon, "key", "revoke", "gone").stderr


def test_telemetry_is_for_keys_with_metrics(remote: tuple[Daemon, str, str]) -> None:
    daemon, _, telemetry = remote
    for role, works in (("metrics", True), ("push", False)):
        key = address_of(new_key(daemon, f"top-{role}", role))
        address = Address(telemetry, "", key.secret, key.server_key).text(f"top-{role}")
        done = glowctl(daemon, "top", "--telemetry", address, "-n", "1", "--json")
        assert (done.returncode == 0) is works, done.stderr
        assert address.split(":")[2][:64] not in done.stderr
        assert works or "the role metrics" in done.stderr


def test_top_does_not_show_another_daemon(remote: tuple[Daemon, str, str]) -> None:
    daemon, _, _ = remote
    done = glowctl(daemon, "--endpoint", new_key(daemon, "elsewhere", "metrics"), "top", "-n", "1", "--json")
    assert done.returncode == 1 and "--telemetry" in done.stderr and not done.stdout


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(23, b"\0") + bytes(32)
"""Of ZMTP 3.0: whoever sends it and nothing more leaves a handshake half open."""


def test_strangers_at_the_port_disturb_nobody(remote: tuple[Daemon, str, str]) -> None:
    daemon, clients, _ = remote
    host, port = clients.removeprefix("tcp://").split(":")
    address, noise = new_key(daemon, "calm", "push"), np.random.default_rng(0)
    with Client(address, timeout_s=WAIT_S) as client, contextlib.ExitStack() as stack:
        expected = audio(client)
        for number in range(300):
            stranger = stack.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
            if number % 3:
                stranger.sendall(GREETING if number % 3 == 1 else noise.bytes(300))
        np.testing.assert_array_equal(audio(client), expected)
        with Client(new_key(daemon, "late", "push"), timeout_s=WAIT_S) as late:
            np.testing.assert_array_equal(audio(late), expected)


def test_plain_tcp_is_served_only_when_asked_for(tmp_path: Path) -> None:
    clients = f"tcp://127.0.0.1:{free_port()}"
    with running_daemon(f"server.endpoint={clients}", "server.plain_tcp=true", VOICE) as daemon:
        with Client(clients, timeout_s=WAIT_S) as far:
            assert len(audio(far)) == len(MEL) * 256
        assert "neither encrypted nor protected by keys" in daemon.launched.log_end()
