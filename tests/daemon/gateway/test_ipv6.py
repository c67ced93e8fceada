"""A gateway that is reached by IPv6: by clients, by watchers of its telemetry, and by engines, with keys and without."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.clients.cli.top import snapshots
from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire.address import Address, address_of
from tests.fakes.joined import FakeJoined
from tests.harness.gateway import GatewayHarness, running_gateway
from tests.harness.joining import free_port
from tests.harness.waiting import WAIT_S, until

MEL = np.full((60, 80), -3, np.float32)


class Site(GatewayHarness):
    """A gateway at ::1 with an engine that has joined there."""

    clients: str
    telemetry: str
    engines: str
    keys: KeyFiles

    def key(self, name: str, role: str, url: str) -> str:
        """The whole address of a new key, as `glowctl key new` prints it."""
        return Address(url, "", self.keys.new(name, [role]), self.keys.server()[0]).text(name)


@contextlib.contextmanager
def running(*settings: str, clients: str = "[::1]") -> Iterator[Site]:
    ports = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory() as directory:
        keys = KeyFiles(Path(directory, "keys"))
        voices = "voices={glow={engine='waveglow',devices=[]}}"
        places = [f"tcp://{host}:{port}" for host, port in zip((clients, "[::1]", "[::1]"), ports, strict=True)]
        names = ("server.endpoint", "server.telemetry", "server.engines")
        own = [f"{name}={place}" for name, place in zip(names, places, strict=True)]
        with running_gateway(voices, *own, f"server.keys={keys.directory}", *settings) as gateway:
            site = Site(gateway.process, gateway.run_dir)
            site.clients, site.telemetry, site.engines, site.keys = *places, keys
            engine = FakeJoined(address_of(site.key("pool", "engine", site.engines)), "far")
            try:
                until(lambda: engine.joined, "an engine by IPv6")
                site.wait_for("ready", lambda found: found.voices["glow"].ready)
                yield site
            finally:
                engine.crash()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def plain() -> Iterator[Site]:
    with running("server.plain_tcp=true", "server.max_peer_streams=1") as found:
        yield found


def speak(address: str) -> int:
    """How many samples come back."""
    with Client(address, timeout_s=WAIT_S) as client, client.open(sinks=["socket"]) as stream:
        stream.send(MEL)
        stream.end()
        return sum(chunk.samples for chunk in stream.audio(WAIT_S))


def test_client_with_a_key_speaks_by_ipv6(site: Site) -> None:
    assert speak(site.key("desk", "push", site.clients)) == len(MEL) * 256


def test_client_without_a_key_speaks_by_ipv6(plain: Site) -> None:
    assert speak(plain.clients) == len(MEL) * 256


def test_asyncio_client_speaks_by_ipv6(site: Site) -> None:
    async def run() -> float:
        async with AsyncClient(site.key("loop", "push", site.clients), timeout_s=WAIT_S) as client:
            stream = await client.open(sinks=["null"])
            await stream.send(MEL)
            ending = await stream.wait_played(WAIT_S)
            return getattr(ending, "total_samples", 0)

    assert asyncio.run(run()) == len(MEL) * 256


def test_telemetry_is_read_by_ipv6(site: Site, plain: Site) -> None:
    for address in (site.key("watch", "metrics", site.telemetry), plain.telemetry):
        watching = snapshots(address, WAIT_S)
        assert next(watching)["voices"]["glow"]["ready"]  # type: ignore[index]
        watching.close()  # type: ignore[attr-defined]


def test_machine_without_a_key_is_held_to_its_quotas(plain: Site) -> None:
    with Client(plain.clients, timeout_s=WAIT_S) as one, Client(plain.clients, timeout_s=WAIT_S) as other:
        one.open("first", sinks=["null"])
        with pytest.raises(errors.Refused, match="the machine ::1 has 1 streams open, the most for one peer"):
            other.open("second", sinks=["null"])


def test_gateway_at_all_addresses_is_reached_by_both() -> None:
    with running("server.plain_tcp=true", "server.allow_remote=true", "server.max_peer_streams=1", clients="*") as site:
        port = site.clients.rpartition(":")[2]
        for host in ("[::1]", "127.0.0.1", "localhost"):
            assert speak(f"tcp://{host}:{port}") == len(MEL) * 256
        for host, machine in (("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")):
            with Client(f"tcp://{host}:{port}", timeout_s=WAIT_S) as client:
                client.open(sinks=["null"])
                with pytest.raises(errors.Refused, match=f"the machine {machine} has 1 streams"):
                    client.open(sinks=["null"])
