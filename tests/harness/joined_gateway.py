"""A gateway process of which engines of other machines are a part, and these engines, which are fakes."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glowd.daemon.runtime.keys import KeyFiles
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.telemetry import EngineSnapshot, Snapshot
from tests.fakes.joined import FakeJoined
from tests.harness.gateway import GatewayHarness, running_gateway
from tests.harness.joining import free_port
from tests.harness.waiting import until

ALONE = "voices={glow={engine='waveglow',devices=[]}}"


class Place(GatewayHarness):
    """The gateway, its keys, and engines that join it."""

    keys: KeyFiles
    url: str
    engines: list[FakeJoined]

    def key(self, name: str, role: str = "engine") -> Address:
        return Address(self.url, "", self.keys.new(name, [role]), self.keys.server()[0])

    def start(self, called: str, key: Address | None = None, **about: Any) -> FakeJoined:
        """An engine; nobody waits for it."""
        self.engines.append(FakeJoined(key or self.pool, called, **about))
        return self.engines[-1]

    def join(self, called: str, key: Address | None = None, **about: Any) -> FakeJoined:
        """An engine that serves."""
        engine = self.start(called, key, **about)
        until(lambda: engine.joined or engine.turned_away, "an answer")
        assert engine.joined, engine.turned_away
        self.wait_for("ready", lambda found: engine_of(found, engine).ready)
        return engine

    @property
    def pool(self) -> Address:
        return self._pool

    def open_pool(self) -> None:
        self._pool = self.key("pool")


def engine_of(found: Snapshot, engine: FakeJoined) -> EngineSnapshot:
    assert engine.joined
    return found.voices["glow"].engines.get(engine.joined.name, EngineSnapshot())


def names(found: Snapshot) -> set[str]:
    return set(found.voices["glow"].engines)


@contextlib.contextmanager
def running_place(dial: bool = False) -> Iterator[Place]:
    """A gateway that engines may join, or (`dial`) that dials one. Those that did are ended with it."""
    url = f"tcp://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as directory:
        keys = KeyFiles(Path(directory, "keys"))
        engines = f"server.dial_engines=['{url}']" if dial else f"server.engines={url}"
        settings = (ALONE, engines, f"server.keys={keys.directory}", "server.role_wait_s=300")
        with running_gateway(*settings, "server.max_streams=64") as gateway:
            made = Place(gateway.process, gateway.run_dir)
            made.keys, made.url, made.engines = keys, url, []
            made.open_pool()
            try:
                yield made
            finally:
                gateway.was_killed = made.was_killed
                for engine in made.engines:
                    engine.crash()
