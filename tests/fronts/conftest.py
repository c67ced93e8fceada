"""A whole daemon, which runs in glowd's own environment: this one has the frameworks and no torch."""

import os
import shlex
from collections.abc import Iterator

import pytest

from glowd.clients import launch

GLOWD = os.environ.get("GLOWD", "")
"""The command that starts the daemon."""


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Where the daemon is."""
    assert GLOWD, "GLOWD must be the command of the daemon, such as .venv/bin/glowd; `make test-fronts` sets it"
    with launch.launch("run", command=shlex.split(GLOWD), ready_s=300) as daemon:
        assert daemon.ready is not None
        yield daemon.ready.endpoint


@pytest.fixture
def streams(endpoint: str) -> Iterator["Streams"]:
    """Which streams the daemon has."""
    from glowd.clients import Client

    with Client(endpoint, name="watcher") as client:
        yield Streams(client)


class Streams:
    """The daemon's streams."""

    def __init__(self, client: object) -> None:
        self._client = client

    def count(self) -> int:
        """How many there are."""
        return len(self._client.status().info["streams"])  # type: ignore[attr-defined]
