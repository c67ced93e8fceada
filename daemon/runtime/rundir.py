"""The run directory: the daemon's sockets, their addresses, and whether another program uses them.

Rules: paths and permissions only; claim.py has the locks, sockets.py has ZeroMQ. The directory is private (0700), because
who can write into it can take the place of a role. A directory of another user, or open to others, is refused, not repaired.
"""

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from glowd.daemon.config import MAX_SOCKET_PATH_BYTES, ConfigError, ServerSettings
from glowd.daemon.wire import default_run_dir
from glowd.daemon.wire.ip_version import host_of

OWN = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""An address of this machine, for those that are all of them."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The ZeroMQ endpoints that the gateway binds: those of this machine, and tcp:// ones for others, "" if there is none."""

    clients: str
    telemetry: str
    engine: str
    speaker: str
    remote_clients: str = ""
    remote_telemetry: str = ""
    remote_engines: str = ""


def run_dir(server: ServerSettings) -> Path:
    """The run directory of a configuration; it may not exist yet."""
    return Path(server.run_dir) if server.run_dir else default_run_dir()


def addresses(server: ServerSettings, directory: Path) -> Addresses:
    """The addresses of a configuration whose run directory is `directory`."""
    return Addresses(
        clients=_local(server.endpoint) or f"ipc://{directory}/glowd.ipc",
        telemetry=_local(server.telemetry) or f"ipc://{directory}/top.ipc",
        engine=f"ipc://{directory}/engine.ipc",
        speaker=f"ipc://{directory}/speaker.ipc",
        remote_clients="" if _local(server.endpoint) else server.endpoint,
        remote_telemetry="" if _local(server.telemetry) else server.telemetry,
        remote_engines=server.engines,
    )


def _local(address: str) -> str:
    return address if address.startswith("ipc://") else ""


def prepare_run_dir(directory: Path) -> None:
    """Make the run directory, mode 0700. Raises ConfigError if it cannot be private."""
    if len(os.fsencode(directory / "speaker.ipc")) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the path of the run directory is too long: {directory}; with the name of a socket it must have at most "
            f"{MAX_SOCKET_PATH_BYTES} bytes; set server.run_dir or GLOWD_RUN_DIR to a shorter path"
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(
            f"cannot make the run directory {directory}: {error.strerror}; set server.run_dir to another one"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"the run directory {directory} is not a directory that this user owns; set server.run_dir to one that is"
        )
    if found.st_mode & 0o077:
        raise ConfigError(
            f"the run directory {directory} is open to other users; make it private: chmod 700 {directory}"
        )


def served(found: Addresses) -> list[tuple[str, str]]:
    """The addresses that others connect to, each with the setting that it is of."""
    settings = [
        ("server.endpoint", found.clients), ("server.telemetry", found.telemetry),
        ("server.endpoint", found.remote_clients), ("server.telemetry", found.remote_telemetry),
        ("server.engines", found.remote_engines),
    ]  # fmt: skip
    return [(setting, address) for setting, address in settings if address]


def refuse_busy(found: Addresses) -> None:
    """Raises ConfigError if another program listens at an address that clients connect to."""
    for setting, address in served(found):
        if is_busy(address):
            raise ConfigError(f"another program already listens at {address}; stop it, or choose another {setting}")


def is_busy(address: str) -> bool:
    """Whether a program accepts connections at ipc://PATH or tcp://HOST:PORT."""
    scheme, _, place = address.partition("://")
    try:
        if scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(place)
        else:
            host, port = host_of(address), place.rpartition(":")[2]
            socket.create_connection((OWN.get(host, host), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
