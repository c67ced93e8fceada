"""How urgent the threads of a test are."""

import contextlib
import os
from collections.abc import Iterator

from glowd.daemon.runtime.role import NICENESS
from glowd.daemon.runtime.system import set_niceness


@contextlib.contextmanager
def clients_elsewhere() -> Iterator[None]:
    """Within the `with` this thread and new ones are as urgent as engines, for which clients elsewhere would not wait."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    set_niceness(NICENESS["engine"])
    try:
        yield
    finally:
        set_niceness(before)
