"""What each peer has written into the recordings directory since the gateway started, and whether it may write more.

Rules: files are looked at only when a quota is reached: what was deleted meanwhile counts no more.
"""

from pathlib import Path

from glowd.daemon.runtime.quotas import Quotas
from glowd.daemon.wire import Code, WireError
from glowd.flow.new_file import SUFFIX

MB = 1_000_000


class Account:
    """The files of one peer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bytes: dict[Path, int] = {}
        self._total, self._looked_at = 0, 0

    def open(self, path: Path, quotas: Quotas) -> None:
        """The peer makes a file. Raises WireError if it has as many as it may."""
        if len(self._bytes) >= quotas.files:
            self._look(path.parent)
        if len(self._bytes) >= quotas.files:
            text = f"{self._name} has {quotas.files} recordings, the most for one peer ({quotas.source('files')})"
            raise WireError(Code.OVER_QUOTA, f"{text}; delete some, or raise it")
        self._bytes.setdefault(path, 0)

    def add(self, path: Path, count: int, quotas: Quotas) -> None:
        """The peer writes so many bytes into one of its files. Raises WireError if that is more than it may have."""
        most = quotas.file_mb * MB
        if self._total + count > most:
            self._look(path.parent)
        if self._total + count > most:
            text = f"the recordings of {self._name} have {quotas.file_mb} MB, the most for one peer"
            raise WireError(Code.OVER_QUOTA, f"{text} ({quotas.source('file_mb')}); delete some, or raise it")
        self._bytes[path] = self._bytes.get(path, 0) + count
        self._total += count

    def _look(self, directory: Path) -> None:
        """Find what is there still, if the directory has changed."""
        try:
            changed_at = directory.stat().st_mtime_ns
        except OSError:  # it was deleted, with all that was in it
            changed_at = -1
        if changed_at != self._looked_at:
            self._looked_at = changed_at
            self._bytes = {path: size for path in self._bytes if (size := _size(path)) is not None}
            self._total = sum(self._bytes.values())


def _size(path: Path) -> int | None:
    """Of a recording, complete or not; None if there is none."""
    for name in (path, path.with_name(path.name + SUFFIX)):
        try:
            return name.stat().st_size
        except OSError:
            continue
    return None


class Accounts:
    """Of all peers. Owner: the gateway's only thread."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def of(self, peer: str, name: str) -> Account:
        """That of a peer."""
        return self._accounts.setdefault(peer, Account(name))
