"""Fixtures for every room."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.pulse import PulseServer

# A shell that runs the tests in the background has them ignore Ctrl-C, and all that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    """A PulseAudio server with one sink, "glow", shared by all tests: leave it as it was found."""
    with PulseServer(tmp_path_factory.mktemp("pulse")) as server:
        server.add_sink("glow")
        yield server


@pytest.fixture
def own_pulse(tmp_path: Path) -> Iterator[PulseServer]:
    """A PulseAudio server with one sink, "glow", for one test that breaks things."""
    with PulseServer(tmp_path) as server:
        server.add_sink("glow")
        yield server
