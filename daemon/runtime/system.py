"""What the operating system reports about this process, and what this process requests from it.

Rules: each function does one thing. A system that does not have it, or does not allow it, is not an error.
"""

import contextlib
import ctypes
import os
import socket
from functools import cache
from pathlib import Path

REALTIME_PRIORITY = 5  # that of sound servers, low among real-time priorities


def rss_bytes() -> int | None:
    """Resident memory of this process; None if the system does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_name() -> str:
    """A name of this machine that others have not: two containers on one machine differ, two processes in one do not."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return f"{socket.gethostname()}-{boot}" if boot else socket.gethostname()


def set_niceness(niceness: int) -> None:
    """Set this process's niceness (best effort)."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def request_realtime_priority() -> None:
    """Request SCHED_RR for the calling thread (best effort). For a thread that needs little time, but often."""
    with contextlib.suppress(OSError, AttributeError):  # not allowed, or not on this system
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))


def give_back_memory() -> None:
    """Give the system back what was freed, which the C library else keeps (best effort)."""
    with contextlib.suppress(OSError, AttributeError):
        _c_library().malloc_trim(0)


@cache
def _c_library() -> ctypes.CDLL:
    """Made once: each is some types in a cycle, which stay until the garbage is collected."""
    return ctypes.CDLL(None)


def allow_open_files(most: int) -> None:
    """Raise the limit of open files of this process, as far as it may (best effort)."""
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
