"""Fixtures of the tests of `glowlab evaluate` and `glowlab compare`."""

import pytest

from glowd.flow.evaluation import evaluate, renders


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are done here, one after the other: each process of their own would load torch and all metrics first.

    With processes of their own, one test of each command shows that it works.
    """
    for module in (evaluate, renders):
        monkeypatch.setattr(module, "run_jobs", lambda work, jobs, processes: map(work, jobs))
