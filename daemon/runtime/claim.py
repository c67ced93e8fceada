"""One daemon for a run directory, also when the directory is emptied or made anew while the daemon runs.

Rules: locks and paths; no ZeroMQ. The supervisor holds the claim. Two locks make it up, because each has a gap:
- `glowd.lock` in the directory is locked (flock). A file that was deleted locks nothing: a second daemon would make a new one.
- a socket in Linux's abstract namespace has a name made of the path and of the folder around it. No deletion reaches it, and
  it goes with the process. Containers with networks of their own, and other systems, lack it: there the file must do.

Directories are emptied under daemons: /run/user/UID goes with the last logout, /tmp is cleaned. So the claim is renewed every
second: what is gone is made anew, and if that cannot be, the daemon must end.
"""

import contextlib
import fcntl
import hashlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from glowd.daemon.config import ConfigError
from glowd.daemon.runtime.rundir import Addresses, prepare_run_dir, refuse_busy

LOCK = "glowd.lock"
PEER = struct.Struct("3i")
"""What SO_PEERCRED gives: process, user, group."""


class ClaimLostError(Exception):
    """The daemon cannot keep its run directory. The text says why, and what to do."""


class Claim:
    """The run directory, held for this process from `take` to `release`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file: IO[str] | None = None
        self._name: socket.socket | None = None

    def take(self) -> None:
        """Take both locks. Raises ConfigError if another daemon holds one of them."""
        self._name = _bind_name(self.directory)
        self._file = self._lock()

    def renew(self) -> bool:
        """Make the directory and the lock anew, if they are gone; returns whether they were. Raises ClaimLostError."""
        if self._is_ours():
            return False
        try:
            prepare_run_dir(self.directory)
            renewed = self._lock()
        except (ConfigError, OSError) as error:
            raise ClaimLostError(
                f"the run directory {self.directory} was emptied, and cannot be held any more: {error}. Choose a directory "
                "that lasts: --set server.run_dir=DIR or GLOWD_RUN_DIR=DIR (a logout removes /run/user/UID, unless: "
                "loginctl enable-linger USER)"
            ) from error
        assert self._file
        self._file.close()
        self._file = renewed
        return True

    def release(self) -> None:
        """Let another daemon have the directory."""
        for lock in (self._file, self._name):
            if lock:
                lock.close()

    def _is_ours(self) -> bool:
        """Whether the lock file is still the one that is locked."""
        assert self._file
        with contextlib.suppress(OSError):
            return os.path.samestat((self.directory / LOCK).lstat(), os.fstat(self._file.fileno()))
        return False

    def _lock(self) -> IO[str]:
        """The lock file, locked, with our process in it. Raises ConfigError if another daemon has locked it."""
        file = (self.directory / LOCK).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with file:
                file.seek(0)
                raise _taken(self.directory, file.read().strip()) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file


@contextlib.contextmanager
def claim(directory: Path, found: Addresses) -> Iterator[Claim]:
    """Hold the run directory for this process. Raises ConfigError if another daemon holds it or uses an address of ours.

    To be called before ZeroMQ binds, because ZeroMQ silently takes over the file of a local socket that is in use.
    """
    held = Claim(directory)
    try:
        held.take()
        refuse_busy(found)
        yield held
    finally:
        held.release()


def _bind_name(directory: Path) -> socket.socket | None:
    """The socket whose name stands for the directory; None where there is none. Raises ConfigError if another daemon has it."""
    if sys.platform != "linux":
        return None
    name = socket.socket(socket.AF_UNIX)
    address = b"\0glowd-" + hashlib.sha256(_place(directory)).hexdigest().encode()
    try:
        name.bind(address)
        name.listen(1)
    except OSError as error:
        name.close()
        if (holder := _holder(address)) is not None:
            raise _taken(directory, str(holder)) from error
        return None  # another user has taken the name: it says nothing of this directory, and the file must do
    return name


def _place(directory: Path) -> bytes:
    """What is the same for every daemon that would use the directory, also after it was made anew.

    The path is not enough: with a /tmp of its own (systemd's PrivateTmp) a service means another place by it.
    """
    path = directory.resolve()
    around = path.parent.stat()
    return f"{around.st_dev}:{around.st_ino}:".encode() + os.fsencode(path)


def _holder(address: bytes) -> int | None:
    """The process that listens at an abstract address, if it is of this user."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        probe.connect(address)
        process, user, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return process if user == os.getuid() else None
    return None


def _taken(directory: Path, process: str) -> ConfigError:
    return ConfigError(
        f"another glowd (process {process or 'unknown'}) already runs in {directory}; stop it, "
        "or give this one its own directory: GLOWD_RUN_DIR=/some/dir or --set server.run_dir=/some/dir"
    )
