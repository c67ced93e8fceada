"""A new file beside the files of other people: its name is claimed first, and given to it when it is complete.

Rules: standard library only; every program of glowd writes its results by this one way.

    claim    NAME must be free; NAME.glowd-part is made, and locked as long as its writer lives
    publish  the part gets NAME by a hard link, which fails if somebody has taken NAME meanwhile: nothing is overwritten
    keep     the part stays as it is; whoever claims NAME next takes it over
    discard  the part is removed

A part that nobody has locked was left by a process that ended: the next claim removes it. A part that is a link, or of another
user, is not ours, and is left alone. With `replace` the file that has NAME at the claim is replaced, and no other; a command
replaces only what it could have made itself, unless it is told to.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from glowd.flow.recognition.kinds import recognise

SUFFIX = ".glowd-part"
PRIVATE, PUBLIC = 0o600, 0o644
"""Modes: of what may be somebody's speech, and of voices, which other users may have to read."""
PRIVATE_FOLDER = 0o700
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""How a file system answers that has no hard links."""
TRIES = 3


class NameTakenError(OSError):
    """The name belongs to somebody else. The text names the file; it is complete without an errno."""


class NewFile:
    """A file that is written as `file`. Raises NameTakenError if the name is taken, another OSError if it cannot be written."""

    def __init__(self, path: Path, *, replace: bool = False, resume: bool = False, mode: int = PRIVATE) -> None:
        """`resume`: a part that a process left is gone on with, and not removed; `resumed` says whether there was one."""
        self.path, self.part = path, path.with_name(path.name + SUFFIX)
        self._before = _identity(path)
        if self._before is not None and not (replace and stat.S_ISREG(self._before[0])):
            raise NameTakenError(f"{path} {_what(self._before[0])}")
        self._begin(resume, mode)

    def _begin(self, resume: bool, mode: int) -> None:
        left = _leftover(self.part) if resume else None
        self.resumed = left is not None
        self.file: IO[bytes] = _claim(self.part, mode) if left is None else left

    def publish(self) -> None:
        """Give the file its name. Raises NameTakenError if that is taken by now: then the part is kept."""
        try:
            self.file.flush()
        except OSError:  # the disk is full
            self.discard()
            raise
        if self._before is not None and _identity(self.path) == self._before:
            self.part.replace(self.path)
        elif self._before is not None or not _link(self.part, self.path):
            self.file.close()
            raise NameTakenError(f"{self.path} was made or changed by somebody else meanwhile; ours is {self.part}")
        self.file.close()

    def keep(self) -> None:
        """Leave the part for the next claim; one without content is removed."""
        try:
            self.file.flush()
        finally:  # also when the disk is full
            if os.fstat(self.file.fileno()).st_size:
                self.file.close()
            else:
                self.discard()

    def discard(self) -> None:
        """Remove the part, before its lock is given up."""
        self.part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what could not be written is not wanted
            self.file.close()

    @property
    def closed(self) -> bool:
        """Whether it was published, kept or discarded."""
        return self.file.closed

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        """Publish, unless that or something else was done already; after an exception discard."""
        if not self.closed and kind is None:
            self.publish()
        elif not self.closed:
            self.discard()


def claim_output(path: str | Path, makes: str, overwrite: bool, mode: int = PRIVATE) -> NewFile:
    """The file of a command. One that exists is replaced if it is of the kind that the command `makes`, or with `overwrite`.

    Raises OSError; NameTakenError for a file of another kind says what it is.
    """
    path = Path(path)
    try:
        if path.is_file() and not (overwrite or path.is_symlink()):
            kind = recognise(path)
            if kind.name not in (makes, "empty"):
                raise NameTakenError(
                    f"{path} exists already, and is {kind.what}; choose another name, or give --overwrite"
                )
        return NewFile(path, replace=True, mode=mode)
    except NameTakenError:
        raise
    except OSError as error:
        raise OSError(f"cannot write {path}: {reason(error)}") from error


def write_whole(path: Path, content: bytes | memoryview, mode: int = PUBLIC) -> None:
    """Write a file of ours, or replace it, so that a reader sees the old one or the new one. Raises OSError."""
    with NewFile(path, replace=True, mode=mode) as new:
        new.file.write(content)


def make_folder(path: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder, and those around it that are missing, with this mode. One that is there is left as it is."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(mode)  # whatever the umask is


def _identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from one that took its place; None if there is none. A link is not followed."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _what(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "exists already; choose another name"
    if stat.S_ISLNK(mode):
        return "is a link; give the name of a new file"
    return "is a folder; give a file in it" if stat.S_ISDIR(mode) else "is no regular file; give the name of a new file"


def _claim(part: Path, mode: int) -> IO[bytes]:
    """A new part, locked."""
    for _ in range(TRIES):
        try:
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        except FileExistsError:
            if left := _leftover(part):
                part.unlink(missing_ok=True)
                left.close()
            continue
        file = os.fdopen(handle, "w+b")
        if _lock(handle) and _is_at(handle, part):
            os.fchmod(handle, mode)  # whatever the umask is
            return file
        file.close()
    raise NameTakenError(f"{part} is being written already; choose another name")


def _leftover(part: Path) -> IO[bytes] | None:
    """The part of a process that has ended, locked; None if there is none. Raises NameTakenError if it is in use, or not ours."""
    try:
        handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NameTakenError(f"{part} is in the way: {error.strerror}; remove it, or choose another name") from error
    file = os.fdopen(handle, "r+b")
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise NameTakenError(f"{part} is in the way, and not ours; remove it, or choose another name")
        if not _lock(handle):
            raise NameTakenError(f"{part} is being written already; choose another name")
    except BaseException:
        file.close()
        raise
    if _is_at(handle, part):
        return file
    file.close()  # its writer has published it just now
    return None


def _lock(handle: int) -> bool:
    """Lock a file until it is closed. False if another process, or another part of this one, has locked it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: its parts look like leftovers, so two writers are not told apart
        return True
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has this name."""
    found = _identity(path)
    opened = os.fstat(handle)
    return found is not None and found[1:3] == (opened.st_dev, opened.st_ino)


def _link(part: Path, path: Path) -> bool:
    """Give a part its name, unless that is taken: then False."""
    try:
        os.link(part, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _rename(part, path)
    part.unlink()
    return True


def _rename(part: Path, path: Path) -> bool:
    """The same where there are no hard links: an empty file takes the name, and is replaced."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
    except FileExistsError:
        return False
    part.replace(path)
    return True


def reason(error: OSError) -> str:
    """Why a file cannot be written, in words."""
    named: Any = error.strerror
    return str(named or error)
