"""Fixtures: a fake daemon on a socket in a short private directory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.daemon import FakeDaemon


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """A directory whose path is short enough for a socket; pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@pytest.fixture
def fake(socket_dir: Path) -> Iterator[FakeDaemon]:
    """A fake daemon that runs."""
    with FakeDaemon(socket_dir) as daemon:
        yield daemon
