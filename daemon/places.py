"""Where the daemon keeps its sockets: the run directory and the addresses in it.

Rules: paths and permissions only, no sockets. The directory is private (0700), because whoever can write into it can
take the place of a role: a directory that is another user's, or open to others, is refused and never quietly repaired.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from daemon.config import MAX_SOCKET_PATH_BYTES, ConfigError, Server


@dataclass(frozen=True, slots=True)
class Addresses:
    """What the gateway binds, as ZeroMQ endpoints."""

    clients: str
    telemetry: str
    engine: str
    speaker: str


def default_run_dir() -> Path:
    """$GLOWD_RUN_DIR, else $XDG_RUNTIME_DIR/glowd, else /tmp/glowd-UID."""
    if given := os.environ.get("GLOWD_RUN_DIR"):
        return Path(given).absolute()
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "glowd"
    return Path(f"/tmp/glowd-{os.getuid()}")


def run_dir(server: Server) -> Path:
    """The run directory of a configuration; it need not exist yet."""
    return Path(server.run_dir) if server.run_dir else default_run_dir()


def addresses(server: Server, directory: Path) -> Addresses:
    """The addresses of a configuration whose run directory is `directory`."""
    return Addresses(
        clients=server.endpoint or f"ipc://{directory}/glowd.ipc",
        telemetry=server.telemetry or f"ipc://{directory}/top.ipc",
        engine=f"ipc://{directory}/engine.ipc",
        speaker=f"ipc://{directory}/speaker.ipc",
    )


def prepare_run_dir(directory: Path) -> None:
    """Make the run directory, mode 0700. Raises ConfigError where it cannot be private."""
    if len(os.fsencode(directory / "speaker.ipc")) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the run directory's path is too long for local sockets ({MAX_SOCKET_PATH_BYTES} bytes with the file): "
            f"{directory}; set server.run_dir or GLOWD_RUN_DIR to a shorter one"
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"the run directory {directory} is not a directory of this user's; set server.run_dir to one")
    if found.st_mode & 0o077:
        raise ConfigError(f"the run directory {directory} is open to other users; close it: chmod 700 {directory}")
