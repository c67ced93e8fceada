"""The watch over a soak: what the daemon publishes, and what the kernel says of its processes.

Rules: a thread for the telemetry; `processes` reads /proc once. Gaps are dated by the telemetry, which comes twice a second.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glowd.clients.cli.top import snapshots
from glowd.clients.errors import GlowdError
from glowd.daemon.wire.telemetry import Snapshot
from tests.harness.daemon import Daemon, rss_bytes
from tests.soak.records import Gap, Records
from tests.soak.sentinel import Sentinels
from tests.soak.windows import Windows

STALL_BEFORE_S = 2.0
"""What held the machine up before a gap was reported."""


@dataclass(frozen=True)
class Process:
    """A process at one moment."""

    pid: int
    rss_mb: float
    descriptors: int
    threads: int


def processes(daemon: Daemon) -> dict[str, Process]:
    """The daemon's processes by role, and its supervisor; without one that is gone."""
    found = {}
    for role, pid in {"supervisor": daemon.process.pid, **daemon.role_pids()}.items():
        with contextlib.suppress(OSError, ValueError, IndexError):
            folder = Path(f"/proc/{pid}")
            count = [len(list((folder / what).iterdir())) for what in ("fd", "task")]
            found[role] = Process(pid, rss_bytes(pid) / 1e6, *count)
    return found


class Telemetry:
    """The daemon's newest snapshot, and the gaps that it has counted."""

    def __init__(self, daemon: Daemon, records: Records, windows: Windows, sentinels: Sentinels) -> None:
        self._daemon, self._records, self._windows, self._sentinels = daemon, records, windows, sentinels
        self._lock = threading.Lock()
        self._newest: tuple[float, Snapshot] = (time.monotonic(), Snapshot())
        self._known: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-telemetry", daemon=True)

    @property
    def newest(self) -> tuple[float, Snapshot]:
        """When it came, and the snapshot."""
        with self._lock:
            return self._newest

    def _run(self) -> None:
        assert self._daemon.launched.ready
        while not self._over.is_set():
            with contextlib.suppress(GlowdError):  # none came; look again
                for found in snapshots(self._daemon.launched.ready.telemetry):
                    if self._over.is_set():
                        return
                    if found is not None:
                        self._take(Snapshot.from_map(found))

    def _take(self, snapshot: Snapshot) -> None:
        now_s = time.monotonic()
        before = self.newest[1]
        if (snapshot.uptime_s or 0) < (before.uptime_s or 0):
            self._known = {}  # another gateway
        with self._lock:
            self._newest = now_s, snapshot
        for cause, count in snapshot.totals.gaps.items():
            if more := count - self._known.get(cause, 0):
                self._note(cause, more, now_s)
            self._known[cause] = count

    def _note(self, cause: str, count: int, now_s: float) -> None:
        stall_ms = self._sentinels.longest_ms(now_s - STALL_BEFORE_S, now_s)
        self._records.gap(Gap(now_s, cause, count, self._windows.touches(now_s - 1, now_s), stall_ms))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within its `with`."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(10)
