"""What the roles share that serve a front: packages that may be missing, and a listening TCP socket.

Rules: standard library only. A front is optional: what is wrong here is the reason why it cannot start, and the daemon goes on.
"""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from glowd.daemon.runtime.role import CannotStart


@contextmanager
def imported(table: str, packages: Sequence[str]) -> Iterator[None]:
    """A block that imports what the front of this table of the settings needs. Raises CannotStart naming what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "glowd").partition(".")[0]
        if package == "glowd":  # one of ours: then it is our mistake
            raise
        raise CannotStart(
            f"{table}.enabled needs the package {package}, which is not installed; "
            f"install it with: {sys.executable} -m pip install {' '.join(packages)}"
        ) from None


def bound(table: str, host: str, port: int) -> socket.socket:
    """A socket that listens at the address in this table of the settings; port 0: a free one. Raises CannotStart."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except OSError as error:
        raise CannotStart(
            f"cannot listen at {host}:{port}: {error.strerror}; choose another {table}.port or {table}.host"
        ) from None
