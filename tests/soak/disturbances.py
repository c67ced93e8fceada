"""What is done to the daemon in a soak: each process in turn is killed, stopped for a while, or hung until it is replaced.

Rules: one thread; a disturbance begins when the one before is over. A window ends when the daemon says that it is whole again.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from glowd.daemon.wire.telemetry import Snapshot
from tests.harness.daemon import Daemon
from tests.soak.records import Records
from tests.soak.windows import Window, Windows

STOPPED_S = 1.5
RECOVERY_S = 120.0
"""A daemon that is not whole by then has not recovered."""
SETTLE_S = 2.0
"""After the daemon is whole: what was delayed is still on its way."""
POLL_S = 0.2

TURNS: Sequence[tuple[str, str]] = (
    ("kill", "gateway"), ("stop", "engine glow"), ("kill", "speaker"), ("kill", "engine rtisi"), ("stop", "gateway"),
    ("kill", "web"), ("kill", "engine glow"), ("stop", "speaker"), ("hang", "engine rtisi"), ("hang", "gateway"),
    ("stop", "web"), ("hang", "engine glow"), ("hang", "speaker"), ("stop", "engine rtisi"), ("hang", "web"),
)  # fmt: skip
"""kill: SIGKILL. stop: SIGSTOP, and SIGCONT after STOPPED_S. hang: SIGSTOP, until the supervisor replaces the process."""


class Disturber:
    """Disturbs a daemon every `every_s` from `begin_s` to `end_s`. `newest` is the daemon's newest snapshot, and its time."""

    def __init__(
        self, daemon: Daemon, windows: Windows, records: Records, newest: Callable[[], tuple[float, Snapshot]],
        turns: Sequence[tuple[str, str]] = TURNS,
    ) -> None:  # fmt: skip
        self._daemon, self._windows, self._records, self._newest = daemon, windows, records, newest
        self._turns: Iterator[tuple[str, str]] = cycle(turns)
        self._over = threading.Event()

    def run(self, every_s: float, end_s: float) -> None:
        """Returns at the end, or when the daemon does not recover."""
        at_s = time.monotonic() + every_s
        while at_s < end_s and not self._over.wait(max(0.0, at_s - time.monotonic())):
            self.disturb(*next(self._turns))
            at_s = max(at_s + every_s, time.monotonic() + every_s / 2)

    def stop(self) -> None:
        """End it before its time."""
        self._over.set()

    def disturb(self, how: str, role: str) -> None:
        """One disturbance, and the wait until it is over."""
        pid = self._daemon.role_pids().get(role)
        if pid is None:
            self._records.fault("recovery", f"there is no {role} to {how}")
            return
        window = self._windows.begin(f"{how} {role}", time.monotonic())
        self._records.count("disturbances")
        self._signal(how, pid)
        self._wait_whole(window, role, pid if how != "stop" else None)
        self._windows.end(window, time.monotonic() + SETTLE_S)
        time.sleep(SETTLE_S)

    def _signal(self, how: str, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            if how == "stop":
                time.sleep(STOPPED_S)
                os.kill(pid, signal.SIGCONT)

    def _wait_whole(self, window: Window, role: str, old_pid: int | None) -> None:
        until_s = time.monotonic() + RECOVERY_S
        while time.monotonic() < until_s:
            pid = self._daemon.role_pids().get(role)
            if pid is not None and pid != old_pid:
                break
            time.sleep(POLL_S)
        replaced_s = time.monotonic()
        while time.monotonic() < until_s:
            at_s, snapshot = self._newest()
            if at_s > replaced_s + 1 and is_whole(snapshot):
                return
            time.sleep(POLL_S)
        self._records.fault("recovery", f"{window.what}: not whole after {RECOVERY_S:g} s")


def is_whole(snapshot: Snapshot) -> bool:
    """Whether every process is there and every voice keeps pace."""
    voices = snapshot.voices.values()
    return (
        snapshot.state == "ready" and not snapshot.stall
        and all(role.alive for role in snapshot.roles.values())
        and all(voice.ready and not voice.work.degraded for voice in voices)
    )  # fmt: skip
