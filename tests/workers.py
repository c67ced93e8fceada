"""How `make test` shares the files of tests between its workers: the last one computes, the others wait.

A test with processes waits most of its time, and is late where others take the processor then. A test of the network computes
all the time, and may take longer. So the last of three workers or more has a lower priority, and files of the second kind only;
the others have what is left.
"""

import os
from collections.abc import Iterable, Mapping

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

COMPUTING = ("tests/flow/", "tests/bench/test_simulation.py")
"""How the paths of files begin whose tests do little else."""
NICENESS = 5


class Shares(LoadFileScheduling):
    """xdist's `--dist loadfile`, which gives the next file to whoever has nothing to do, with a choice of the file."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        file = choice(self.workqueue, is_last(node.gateway.id, self.numnodes))
        if file is None:
            node.shutdown()
            return
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


def choice(files: Iterable[str], computes: bool) -> str | None:
    """The next file for a worker. One that computes gets nothing else; the others get such files when there are no others."""
    ordered = sorted(files, key=lambda file: file.startswith(COMPUTING) != computes)
    if not ordered or (computes and not ordered[0].startswith(COMPUTING)):
        return None
    return ordered[0]


def is_last(worker: str, workers: int) -> bool:
    """Whether a worker, by its name, is the last of three or more."""
    return workers > 2 and worker == f"gw{workers - 1}"


def lower_priority(environment: Mapping[str, str]) -> None:
    """Give this process the priority of its worker; `environment` as xdist makes it."""
    name, count = (environment.get(f"PYTEST_XDIST_WORKER{part}", "0") for part in ("", "_COUNT"))
    if is_last(name, int(count)):
        os.nice(NICENESS)
