"""The unit files of systemd: a user's, where there is sound, and the system's, for machines without.

Rules: text in, text out, but for `install`. user.service and system.service are the units, with words like @COMMAND@ for what
depends on this installation.
"""

import math
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from glowd.daemon.config import RESTART_S, Config, ConfigError

NAME = "glowd.service"
RELOAD_SINCE = 253
"""The version of systemd that has Type=notify-reload."""
LEAST_WATCHDOG_S = 60
STAGES, STOP_MORE_S = 6, 10
"""The roles stop in so many stages at most, one after the other; and what the supervisor needs besides."""
FILES_OF_A_CLIENT, FILES_OF_GLOWD = 8, 1024
SYSTEM_PLACE = Path("/etc/systemd/system") / NAME
PLAIN = re.compile(r"[\w@/.,:=+%-]+\Z")


def unit(config: Config, arguments: Sequence[str], user: str = "", version: int | None = None) -> str:
    """The unit for these settings and arguments of glowd: the system's as `user`, or without one the own user's.

    `version` is that of systemd; None: as it is installed here.
    """
    command = (sys.executable, "-P", "-m", "glowd.daemon.app", *arguments)
    words = {
        "TYPE": _type(systemd_version() if version is None else version),
        "COMMAND": " ".join(quoted(word).replace("$", "$$") for word in command),
        "WATCHDOG_S": str(watchdog_s(config)),
        "STOP_S": str(stop_s(config)),
        "FILES": str(files_needed(config)),
        "USER": user,
        "GROUPS": "SupplementaryGroups=audio" if config.speaker.enabled else "",
        "RECORDINGS": _writable(config, "--config" in arguments),
    }
    template = resources.files(__package__).joinpath("system.service" if user else "user.service").read_text("utf-8")
    filled = re.sub(r"@([A-Z_]+)@", lambda match: words[match[1]], template)
    return re.sub(r"\n{2,}(?=ExecStart|Environment)", "\n", filled)  # no line for what is not needed


def _writable(config: Config, has_file: bool) -> str:
    """The directory of recordings, unless it is inside the service's own: it is relative to that, where no file says more."""
    directory = Path(config.files.directory)
    is_inside = not has_file and directory.is_relative_to(Path.cwd())
    return "" if is_inside else "ReadWritePaths=" + quoted(f"-{directory}")


def _type(version: int) -> str:
    if version >= RELOAD_SINCE:
        return "Type=notify-reload"
    return "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"


def files_needed(config: Config) -> int:
    """How many files and sockets may be open."""
    return config.server.max_clients * FILES_OF_A_CLIENT + FILES_OF_GLOWD


def watchdog_s(config: Config) -> int:
    """How long audio may stand still: longer than a role is awaited that hangs and is restarted, or streams wait for it."""
    supervisor = config.supervisor
    mends_s = supervisor.watchdog_s + RESTART_S + supervisor.grace_s
    return max(LEAST_WATCHDOG_S, round(2 * max(mends_s, config.server.role_wait_s)))


def stop_s(config: Config) -> int:
    """How long an orderly stop may take: each stage its grace. Sooner, systemd would kill what is not done yet."""
    return math.ceil(STAGES * config.supervisor.grace_s) + STOP_MORE_S


def quoted(word: str) -> str:
    """A word in a unit file: % and signs that would divide it stand for themselves."""
    word = word.replace("%", "%%")
    if PLAIN.match(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def systemd_version() -> int:
    """The version of systemd on this machine; the newest known where there is none."""
    if program := shutil.which("systemctl"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        if match := re.match(r"systemd (\d+)", said):
            return int(match[1])
    return RELOAD_SINCE


def place(user: str) -> Path:
    """Where the unit belongs: the system's if it has a user."""
    return SYSTEM_PLACE if user else Path.home() / ".config/systemd/user" / NAME


def next_steps(user: str) -> str:
    """The commands after the unit was written."""
    control = "systemctl" if user else "systemctl --user"
    linger = "" if user else "\nTo run it without being logged in: loginctl enable-linger"
    return f"Now: {control} daemon-reload && {control} enable --now glowd{linger}"


def install(text: str, user: str) -> Path:
    """Write the unit to its place. Raises ConfigError if it cannot be written, or if the service's user does not exist."""
    path = place(user)
    if user:
        find_user(user)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; run it as root, or without --install and write the text there"
        ) from error
    return path


def find_user(name: str) -> pwd.struct_passwd:
    """The user of that name. Raises ConfigError."""
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigError(
            f"there is no user {name}; make one: sudo useradd --system --home-dir /var/lib/glowd --shell /usr/sbin/nologin {name}"
        ) from error
