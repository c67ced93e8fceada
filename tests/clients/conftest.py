"""Fixtures: a fake daemon on a socket in a short private directory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.daemon import FakeDaemon


@pytest.fixture
def socket_dir() -> Iterator[Path]:
    """Socket paths are short by law; pytest's own are long."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@pytest.fixture
def fake(socket_dir: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(socket_dir) as daemon:
        yield daemon
