"""The keys of the daemon and of its clients on other machines: files in one private directory.

    server.key          {"public", "secret"} of the daemon, made when it is first needed
    clients/NAME.key    {"public", "roles", "quotas"} of a client; its secret is in its address and nowhere here

Rules: files only; no socket. The directory belongs to the daemon's user and is open to nobody else (0700, files 0600), and links
are not followed. A file is written whole or not at all. What was read is kept: a file is read again when it has changed, and the
directory when that has. So a key counts, or counts no more, without a restart, and a look costs the same however many ask.
"""

import contextlib
import errno
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glowd.daemon.config import ServerSettings
from glowd.daemon.runtime.permissions import Rights, RoleError
from glowd.daemon.runtime.quotas import QuotaError, checked
from glowd.daemon.wire.json_text import read_json

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SETTLED_NS = 3_000_000_000
"""So long after a change another one cannot have the same time any more: some file systems count in steps of two seconds."""
TEMPORARY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EIO, errno.ESTALE)
"""Errors that say nothing about a file, and may be gone soon."""

Stamp = tuple[int, int, int, int]
"""Of a file or directory: another one after each change of it."""


class KeyFileError(Exception):
    """A key cannot be made, read or revoked. The text names the file and says what to do."""


class CannotReadNow(KeyFileError):
    """The system cannot read files at the moment. It is not known which keys count."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A client that may connect: the name of its key, and what it may do."""

    name: str
    public: bytes
    rights: Rights
    quotas: dict[str, int] = field(default_factory=dict)
    """Where they are other than those of the settings."""


Keys = Callable[[], Mapping[bytes, ClientKey]]
"""Tells which keys count now, by public key. A name is not enough: a key that was revoked may have a successor of its name."""


def default_directory() -> Path:
    """$GLOWD_KEYS; for a service of the system its state directory; else ~/.config/glowd/keys."""
    if chosen := os.environ.get("GLOWD_KEYS"):
        return Path(chosen).absolute()
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0], "keys")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "glowd", "keys")


def keypair() -> tuple[bytes, bytes]:
    """A new public and secret key, 32 bytes each."""
    import zmq  # the supervisor needs it only here
    from zmq.utils import z85

    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


def public_of(secret: bytes) -> bytes:
    """The public key of a secret one. Raises ValueError if it is none."""
    import zmq
    from zmq.utils import z85

    try:
        return z85.decode(zmq.curve_public(z85.encode(secret)))
    except zmq.ZMQError as error:
        raise ValueError(f"it is no key: {error}") from None


def keys_directory(server: ServerSettings) -> Path:
    """The directory of a configuration."""
    return Path(server.keys).expanduser() if server.keys else default_directory()


class KeyFiles:
    """The directory. Several processes may use it: the supervisor writes, the gateway reads."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.clients = directory, directory / "clients"
        self._known: dict[bytes, ClientKey] = {}
        self._read: dict[str, tuple[Stamp | None, ClientKey | None]] = {}
        """By the name of the file: when it was read, None: it may change again without a trace; and the key in it."""
        self._listed: Stamp | None = None
        """When the directory was read, likewise."""

    # ---- the daemon's own

    def server(self) -> tuple[bytes, bytes]:
        """Public and secret key of the daemon; made at the first call. Raises KeyFileError."""
        self._prepare()
        path = self.directory / "server.key"
        if (found := self._load(path)) is None:
            public, secret = keypair()
            self._save(path, {"public": public.hex(), "secret": secret.hex()})
            return public, secret
        try:
            secret = bytes.fromhex(found["secret"])
            return public_of(secret), secret
        except (KeyError, TypeError, ValueError):
            raise KeyFileError(f"{path} holds no key; delete it, and every client needs a new address then") from None

    # ---- those of clients

    def new(self, name: str, roles: list[str], quotas: dict[str, int] | None = None) -> bytes:
        """Make a key for a client; returns its secret, which is kept nowhere. Raises KeyFileError."""
        if not NAME.fullmatch(name):
            raise KeyFileError(f"a key's name must be letters, digits, '.', '_' or '-', at most 64; got {name!r:.80}")
        try:
            rights, own = Rights.of(roles), checked(quotas or {})
        except (RoleError, QuotaError) as error:
            raise KeyFileError(str(error)) from None
        if rights.engine and own:
            raise KeyFileError(f"an engine takes no quotas, and {', '.join(own)} was given; leave it out")
        self._prepare()
        path = self.clients / f"{name}.key"
        if path.exists() or path.is_symlink():
            raise KeyFileError(f"there is a key {name} already; revoke it first: glowctl key revoke {name}")
        public, secret = keypair()
        self._save(path, {"public": public.hex(), "roles": roles} | ({"quotas": own} if own else {}))
        return secret

    def revoke(self, name: str) -> None:
        """From now on nobody connects with this key. Raises KeyFileError if there is none."""
        path = self.clients / f"{name}.key"
        if not NAME.fullmatch(name) or not path.is_file():
            names = ", ".join(sorted(key.name for key in self.all())) or "none"
            raise KeyFileError(f"there is no key {name!r:.80}; keys: {names}")
        path.unlink()

    def all(self) -> list[ClientKey]:
        """Every client's key. Raises CannotReadNow, as the others do."""
        return list(self.look().values())

    def find(self, public: bytes) -> ClientKey | None:
        """The client with this public key, if it may connect."""
        return self.current().get(public)

    def current(self) -> Mapping[bytes, ClientKey]:
        """The keys that count now, by public key, whatever was added or revoked a moment ago.

        A file that was changed in its place is not noticed: the directory says nothing of it.
        """
        if self._listed is None or _stamp_of(self.clients) != self._listed:
            self.look()
        return self._known

    def look(self) -> Mapping[bytes, ClientKey]:
        """The keys that count now, by public key: reads the directory, and every file that is new or has changed."""
        now_ns, listed, read = time.time_ns(), _stamp_of(self.clients), {}
        for name, stamp in self._stamps():
            before = self._read.get(name, (None, None))
            is_same = stamp == before[0]
            read[name] = before if is_same else (_if_settled(stamp, now_ns), self._client(self.clients / name))
        self._known = {key.public: key for _, (_, key) in sorted(read.items()) if key}
        self._read, self._listed = read, _if_settled(listed, now_ns)
        return self._known

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        """Of all files of keys; none if the directory is not there, or not ours."""
        try:
            with os.scandir(self.clients) as entries:
                for entry in entries:
                    if entry.name.endswith(".key"):
                        with contextlib.suppress(FileNotFoundError):
                            yield entry.name, _stamp(entry.stat(follow_symlinks=False))
        except OSError as error:
            _require_lasting(error, self.clients)

    def _client(self, path: Path) -> ClientKey | None:
        """The key in a file; None for one that is damaged: its client cannot connect."""
        try:
            if found := self._load(path):
                rights, quotas = Rights.of(found["roles"]), checked(found.get("quotas", {}))
                return ClientKey(path.stem, bytes.fromhex(found["public"]), rights, quotas)
        except CannotReadNow:
            raise
        except (KeyFileError, RoleError, KeyError, TypeError, ValueError):
            pass
        return None

    # ---- files

    def _prepare(self) -> None:
        for directory in (self.directory, self.clients):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = directory.lstat()
            except OSError as error:
                raise KeyFileError(
                    f"cannot make {directory}: {error.strerror}; set server.keys to another place"
                ) from None
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise KeyFileError(
                    f"{directory} must be a directory of this user that nobody else can enter; chmod 700 {directory}, or "
                    "set server.keys to another place"
                )

    def _load(self, path: Path) -> dict[str, Any] | None:
        """The map in a private file; None if there is none. Raises KeyFileError."""
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
                found = os.fstat(file.fileno())
                if found.st_uid != os.getuid() or found.st_mode & 0o077:
                    raise KeyFileError(f"{path} must belong to this user, and to nobody else: chmod 600 {path}")
                table = read_json(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _require_lasting(error, path)
            raise KeyFileError(f"cannot read {path}: {error}") from None
        return table if isinstance(table, dict) else {}

    def _save(self, path: Path, table: dict[str, Any]) -> None:
        try:
            number, part = tempfile.mkstemp(dir=path.parent, suffix=".part")  # mode 0600
            with os.fdopen(number, "w") as file:
                json.dump(table, file)
            Path(part).replace(path)
        except OSError as error:
            raise KeyFileError(f"cannot write {path}: {error.strerror}") from None


def _require_lasting(error: Exception, path: Path) -> None:
    """Raise CannotReadNow for an error that says nothing about a file."""
    if isinstance(error, OSError) and error.errno in TEMPORARY:
        raise CannotReadNow(f"cannot read {path} at the moment: {error.strerror}") from None


def _stamp_of(path: Path) -> Stamp | None:
    """That of a directory; None if it is not there."""
    with contextlib.suppress(OSError):
        return _stamp(path.stat())
    return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _if_settled(stamp: Stamp | None, now_ns: int) -> Stamp | None:
    return stamp if stamp and now_ns - stamp[2] > SETTLED_NS else None
