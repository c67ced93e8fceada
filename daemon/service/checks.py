"""`glowd doctor --service`: what a unit of systemd needs, as the user who runs this.

Rules: as in doctor.py. Nothing is changed.
"""

import getpass
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from glowd.daemon.config import Config
from glowd.daemon.doctor import Finding
from glowd.daemon.runtime.caches import can_write
from glowd.daemon.runtime.rundir import run_dir
from glowd.daemon.service.unit import RELOAD_SINCE, files_needed, systemd_version

SOUND_DEVICES = Path("/dev/snd")
LINGER = Path("/var/lib/systemd/linger")
SESSION_SOUND = ("pulse/native", "pipewire-0")
"""The sockets of sound servers, inside $XDG_RUNTIME_DIR."""
REALTIME = 20


def examine_service(config: Config) -> Iterator[Finding]:
    """Check what the service needs beside what glowd needs."""
    yield check_systemd()
    yield check_cache(config)
    yield check_recordings(Path(config.files.directory))
    yield check_files(config)
    if config.speaker.enabled:
        yield check_sound_access()
        yield check_realtime()
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield check_linger()


def check_systemd() -> Finding:
    """systemd, and how it reloads."""
    if not shutil.which("systemctl"):
        return Finding("systemd", "missing", "systemctl is not found", "use another manager: README, As a service")
    version = systemd_version()
    how = "waits until a reload is done" if version >= RELOAD_SINCE else "sends a signal to reload, and does not wait"
    return Finding("systemd", "ok", f"version {version}: {how}")


def check_cache(config: Config) -> Finding:
    """Whether compiled code lasts longer than the run directory."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME", "~")) / ".cache")
    place = Path(os.environ.get("NUMBA_CACHE_DIR") or home / "numba")
    if can_write(place):
        return Finding("cache", "ok", f"compiled code is kept in {place}")
    text = (
        f"{place} cannot be written: compiled code is kept in {run_dir(config.server)}, and made anew after each boot"
    )
    return Finding("cache", "note", text, "give the unit a CacheDirectory, as `glowd service --user NAME` does")


def check_recordings(directory: Path) -> Finding:
    """The directory of the file sink."""
    if can_write(directory):
        return Finding("recordings", "ok", f"{directory} can be written")
    remedy = "--set files.directory=DIR; in the system's unit, /var/lib/glowd/recordings"
    return Finding("recordings", "note", f"{directory} cannot be written: file sinks are refused", remedy)


def check_files(config: Config) -> Finding:
    """How many files and sockets may be open."""
    needed, most = files_needed(config), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = f"at most {most} open files; server.max_clients = {config.server.max_clients} may take {needed}"
    if os.getuid() == 0 or most == resource.RLIM_INFINITY or most >= needed:
        return Finding("files", "ok", text)
    return Finding(
        "files", "note", text, "lower server.max_clients, or raise DefaultLimitNOFILE in systemd's user.conf"
    )


def check_sound_access() -> Finding:
    """A sound server of the session, or the devices themselves."""
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    servers = [str(session / name) for name in SESSION_SOUND if (session / name).exists()]
    if servers:
        return Finding("sound access", "ok", f"a sound server listens at {servers[0]}")
    devices = sorted(SOUND_DEVICES.glob("pcm*p")) if SOUND_DEVICES.is_dir() else []
    if any(os.access(device, os.R_OK | os.W_OK) for device in devices):
        return Finding("sound access", "ok", f"{devices[0]} can be used")
    if devices:
        remedy = f"sudo usermod -aG audio {getpass.getuser()}, and log in again"
        return Finding("sound access", "missing", f"{devices[0]} belongs to another group", remedy)
    text = "there is no sound server in this session, and no sound device"
    return Finding("sound access", "missing", text, "run it as a user's service, or --set speaker.enabled=false")


def check_realtime() -> Finding:
    """Whether the unit's LimitRTPRIO can be given."""
    most = resource.getrlimit(resource.RLIMIT_RTPRIO)[1]
    if os.getuid() == 0 or most == resource.RLIM_INFINITY or most >= REALTIME:
        return Finding("real time", "ok", f"priority up to {REALTIME} can be given")
    remedy = f"DefaultLimitRTPRIO={REALTIME} in systemd's user.conf; the system's unit has it"
    return Finding("real time", "note", f"a user's unit gets at most {most}; it matters on a busy machine only", remedy)


def check_linger() -> Finding:
    """Whether a user's service runs without a session."""
    user = getpass.getuser()
    if (LINGER / user).exists():
        return Finding("linger", "ok", f"services of {user} run without a session")
    text = f"services of {user} end with the last session"
    return Finding("linger", "note", text, f"if that is not wanted: loginctl enable-linger {user}")
