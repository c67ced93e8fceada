"""How tests are shared between workers."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workers import Shares, choice, is_last

WAITING = ("tests/e2e/test_device.py", "tests/clients/test_client.py", "tests/daemon/test_app.py")
COMPUTING = ("tests/bench/test_simulation.py", "tests/flow/test_mel.py", "tests/flow/training/test_train.py")


class FakeWorker:
    """A worker that does a test when it is told to."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.waiting, self.done, self.shutting_down = list[int](), list[str](), False

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.waiting += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def shared(files: Sequence[str], workers: int) -> list[FakeWorker]:
    """The workers when all tests of files, three in each, are done; each does one in turn."""
    tests = [f"{file}::test_{number}" for file in files for number in range(3)]
    option = SimpleNamespace(loadscopereorder=False)
    config: Any = SimpleNamespace(getvalue=lambda name: ["popen"] * workers, option=option)
    scheduling, made = Shares(config), [FakeWorker(number) for number in range(workers)]
    nodes: list[Any] = list(made)
    for node in nodes:
        scheduling.add_node(node)
    for node in nodes:
        scheduling.add_node_collection(node, tests)
    scheduling.schedule()
    while any(one.waiting for one in made):
        for node in nodes:
            if node.waiting:
                index = node.waiting.pop(0)
                node.done.append(tests[index].partition("::")[0])
                scheduling.mark_test_complete(node, index)
    assert sorted(test for one in made for test in one.done) == sorted(test.partition("::")[0] for test in tests)
    assert all(one.shutting_down for one in made), "a worker that is not told of the end waits with its last test"
    return made


def test_last_of_three_workers_only_computes() -> None:
    *others, last = shared([*WAITING, *COMPUTING], 3)
    assert last.done and set(last.done) <= set(COMPUTING)
    assert {file for one in others for file in one.done} >= set(WAITING)


@pytest.mark.parametrize("files", [WAITING, COMPUTING])
def test_files_of_one_kind_are_all_run(files: Sequence[str]) -> None:
    *_, last = shared(files, 3)
    assert bool(last.done) == (files == COMPUTING)


def test_two_workers_share_everything() -> None:
    assert all(one.done for one in shared([*WAITING, *COMPUTING], 2))
    assert not is_last("gw1", 2) and is_last("gw2", 3) and not is_last("gw3", 3)


def test_others_compute_when_nothing_else_is_left() -> None:
    assert choice([COMPUTING[0], WAITING[0]], computes=False) == WAITING[0]
    assert choice(COMPUTING, computes=False) == COMPUTING[0]
    assert choice(WAITING, computes=True) is None and choice([], computes=False) is None
