"""Fixtures for all tests, the marks by which `make test-fast` leaves tests out, and the order of `make test`."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.harness.pulse import PulseServer
from tests.workers import Shares, lower_priority

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No deadline for an example: its time depends on how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TESTS = Path(__file__).parent
MARKED = {
    "process": (
        "bench/", "clients/cli/test_glowctl.py", "clients/speechd/test_module.py", "clients/test_launch.py",
        "daemon/gateway/test_gateway", "daemon/gateway/test_joining", "daemon/runtime/test_hangup.py",
        "daemon/runtime/test_role.py", "daemon/runtime/test_supervisor.py", "daemon/speaker/test_speaker",
        "daemon/test_app.py", "daemon/web/test_web_role.py", "daemon/wyoming/", "e2e/", "flow/test_cli.py",
        "flow/training/test_distributed.py", "soak/test_soak.py",
    ),
    "slow": (
        "bench/", "daemon/engine/test_vocoders.py", "e2e/", "flow/evaluation/", "flow/importing/",
        "flow/inversion/test_triton_backend.py", "flow/network/test_wavenet", "flow/phase_recovery/test_griffin_lim.py",
        "flow/training/test_distributed.py", "flow/training/test_locked_phase.py", "flow/training/test_pitch_training.py",
        "flow/training/test_spectral.py", "flow/training/test_train.py", "soak/test_soak.py",
    ),
}  # fmt: skip
"""For each mark how the paths of its test files begin. `device` is the mark of every test that uses a PulseAudio server."""
DEVICE_FIXTURES = {"pulse", "own_pulse"}


def marks_of(path: str, fixtures: Sequence[str]) -> set[str]:
    """The marks of a test in a file, by its path inside tests/ and its fixtures."""
    marks = {mark for mark, places in MARKED.items() if path.startswith(places)}
    return marks | ({"device"} if DEVICE_FIXTURES & set(fixtures) else set())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called by pytest: mark every collected test, and put the files with long ones first.

    A process that begins a long file last would be alone at the end.
    """
    for item in items:
        for mark in marks_of(item.path.relative_to(TESTS).as_posix(), getattr(item, "fixturenames", ())):
            item.add_marker(mark)
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("process")}
    items.sort(key=lambda item: item.path not in long)


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest in each worker before anything is collected."""
    lower_priority(os.environ)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    """Called by pytest-xdist for `-n`; None for its own scheduling."""
    return Shares(config, log) if config.getvalue("dist") == "loadfile" else None


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
