"""A pytest plugin for `make test-fast`: say at the end how many tests `-m` left out, by mark.

The marks are defined in pyproject.toml. A test with two marks is counted for both.
"""

from collections import Counter
from collections.abc import Sequence

import pytest

MARKS = ("slow", "process", "device")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest when it loads this plugin."""
    config.pluginmanager.register(LeftOut())


class LeftOut:
    """Collects the deselected tests of one run."""

    def __init__(self) -> None:
        self.tests: list[pytest.Item] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Called by pytest for the tests that an option such as `-m` removes."""
        self.tests.extend(items)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Called by pytest when all tests have run."""
        terminalreporter.write_line(summary([{mark.name for mark in test.iter_markers()} for test in self.tests]))


def summary(marks: Sequence[set[str]]) -> str:
    """The line about the tests that were left out, from the names of the marks of each."""
    counts = Counter(mark for names in marks for mark in names if mark in MARKS)
    by_mark = ", ".join(f"{counts[mark]} {mark}" for mark in MARKS)
    return f"left out: {len(marks)} tests ({by_mark}; a test may have two of these marks). `make test` runs them too."
