"""Fixtures for every room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pulse import PulseServer


@pytest.fixture(scope="session")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    """A PulseAudio server with one sink, "glow", shared by all tests: leave it as it was found."""
    directory: Path = tmp_path_factory.mktemp("pulse")
    with PulseServer(directory) as server:
        server.add_sink("glow")
        yield server


@pytest.fixture
def own_pulse(tmp_path: Path) -> Iterator[PulseServer]:
    """A PulseAudio server with one sink, "glow", for one test that breaks things."""
    with PulseServer(tmp_path) as server:
        server.add_sink("glow")
        yield server
