"""What the system says of this process, and what this process asks of it.

Rules: each function asks the system one thing, and a system that does not have it, or does not allow it, is no error.
"""

import contextlib
import os
from pathlib import Path

REALTIME_PRIORITY = 5  # low among the real-time ones: the sound server's


def rss_bytes() -> int | None:
    """Resident memory of this process; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_niceness(niceness: int) -> None:
    """Set this process's scheduling priority; without the right to, it stays as it is."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def hurry() -> None:
    """Have the calling thread served before ordinary ones, where the system lets us; it asks for little and often."""
    with contextlib.suppress(OSError, AttributeError):  # no right to it, or no such thing here
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
