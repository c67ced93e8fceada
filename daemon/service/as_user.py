"""Run a command as the service would be run: its user, groups, environment and directories.

Rules: only root can be another user. What systemd makes for the unit is made here and removed again, if it is not there. The
sandbox of the unit is not set up.
"""

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from glowd.daemon.config import ConfigError

RUN, CACHE, STATE = Path("/run/glowd"), Path("/var/cache/glowd"), Path("/var/lib/glowd")
"""RuntimeDirectory, CacheDirectory and StateDirectory of system.service."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_as(user: pwd.struct_passwd, command: Sequence[str], with_sound: bool) -> int:
    """Run a command as a user; returns its exit status. Raises ConfigError if it cannot be run."""
    if os.geteuid() != 0:
        raise ConfigError(f"only root can check what user {user.pw_name} may do: run it with sudo, or without --user")
    with contextlib.ExitStack() as stack:
        for directory in (RUN, CACHE, STATE):
            stack.enter_context(made(directory, user))
        try:
            done = subprocess.run(
                command,
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=groups_of(user, with_sound),
                env=environment_of(user),
                cwd=STATE,
                check=False,
            )
        except PermissionError as error:
            raise ConfigError(
                f"user {user.pw_name} cannot run {command[0]}: {error.strerror}; install glowd, with its Python, where this user "
                "can read it, such as /opt/glowd"
            ) from error
    return done.returncode


def groups_of(user: pwd.struct_passwd, with_sound: bool) -> list[int]:
    """The user's groups, and that of sound devices, if the unit adds it."""
    found = os.getgrouplist(user.pw_name, user.pw_gid)
    with contextlib.suppress(KeyError):
        return found + ([grp.getgrnam("audio").gr_gid] if with_sound else [])
    return found


def environment_of(user: pwd.struct_passwd) -> dict[str, str]:
    """The environment that the unit has."""
    return {
        "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell, "PATH": PATH,
        "LANG": os.environ.get("LANG", "C.UTF-8"), "GLOWD_RUN_DIR": str(RUN),
        "NUMBA_CACHE_DIR": str(CACHE / "numba"), "TRITON_CACHE_DIR": str(CACHE / "triton"),
    }  # fmt: skip


@contextlib.contextmanager
def made(directory: Path, user: pwd.struct_passwd) -> Iterator[None]:
    """The directory, private and of the user; removed afterwards if it was not there."""
    if directory.exists():
        yield
        return
    directory.mkdir(mode=0o700, parents=True)
    try:
        os.chown(directory, user.pw_uid, user.pw_gid)
        yield
    finally:
        shutil.rmtree(directory)
