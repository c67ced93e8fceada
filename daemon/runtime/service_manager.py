"""What the service manager, systemd, is told: when the daemon is ready, reloads and stops, how it is, and that it works.

Rules: standard library only, no process of ours. The protocol is sd_notify(3): datagrams of VARIABLE=VALUE lines to the socket
in $NOTIFY_SOCKET. Without one nothing is sent. The variables of the protocol are taken out of the environment, because they are
for this process and not for the roles that it starts.

    starting    EXTEND_TIMEOUT_USEC every second, as long as this process runs: each role has its own time-out
    ready       READY=1; then WATCHDOG=1 whenever the gateway reports that audio moves, or that there is none to move
    reloading   RELOADING=1 with MONOTONIC_USEC, then READY=1
    stopping    STOPPING=1
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable

from glowd.daemon.runtime.status import READY, RoleState

EXTEND_S = 15
"""By so much a time-out of the service manager is extended each second: enough for a busy machine."""
MIN_WATCHDOG_S = 10.0
PATIENCE_S = 1.0
"""A manager that does not read for so long is not waited for."""
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

log = logging.getLogger("glowd")

Send = Callable[[str, float], object]
"""Called with a text and how long it may take; a text that cannot be sent is dropped."""


def notifier(address: str) -> Send:
    """A function that sends to the socket of that name. "@": in the abstract namespace. A manager that is gone is ignored."""
    name = f"\0{address[1:]}" if address.startswith("@") else address
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0))

    def send(text: str, patience_s: float) -> None:
        channel.settimeout(patience_s)
        with contextlib.suppress(OSError):  # also of a queue that is full: a timeout of 0 never waits
            channel.sendto(text.encode(), name)

    return send


class ServiceManager:
    """Tells the service manager about the daemon. Owner: the supervisor's only thread."""

    def __init__(self, send: Send = lambda text, patience_s: None) -> None:
        self._send_within = send
        self._roles: dict[str, RoleState] = {}
        self._phase, self._text, self._status = "starting", "", ""
        self._stall = ""

    @classmethod
    def from_environment(cls) -> "ServiceManager":
        """The one that started this process, if any; its variables are removed."""
        address, watchdog_usec, _ = (os.environ.pop(name, "") for name in VARIABLES)
        if watchdog_usec.isdecimal() and int(watchdog_usec) < MIN_WATCHDOG_S * 1e6:
            log.warning("WatchdogSec is %g s; glowd reports once a second: use 60", int(watchdog_usec) / 1e6)
        return cls(notifier(address)) if address else cls()

    # ---------------------------------------------------------------- the daemon

    def ready(self, text: str) -> None:
        """Clients may connect, or a reload has ended. `text` says what runs."""
        if self._phase == "stopping":
            return
        self._phase, self._text = "ready", text
        self._announce("READY=1")

    def reloading(self) -> None:
        """The settings are being read again; `ready` follows."""
        self._phase = "reloading"
        # systemd takes a RELOADING without the time for that of an earlier reload, and waits on.
        now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._announce(f"RELOADING=1\nMONOTONIC_USEC={now_usec}")

    def stopping(self) -> None:
        """The roles are being stopped."""
        self._phase = "stopping"
        self._announce("STOPPING=1")

    def tick(self) -> None:
        """Called every second: what has a time-out gets more time, because this process works."""
        if self._phase != "ready":
            self._send(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}")

    def _announce(self, variables: str) -> None:
        """A change of the phase, which must arrive: it is the only one."""
        self._status = self._new_status()
        self._send_within(f"{variables}\n{self._status}", PATIENCE_S)

    def _send(self, text: str) -> None:
        """What is said again, or is not needed: this process does not wait for a manager that is busy."""
        self._send_within(text, 0)

    # ---------------------------------------------------------------- the roles

    def changed(self, state: RoleState) -> None:
        """A role is in another state."""
        self._roles[state.role] = state
        self._report()

    def forget(self, role: str) -> None:
        """A role is not wanted any more."""
        self._roles.pop(role, None)
        self._report()

    def pulse(self, stall: str) -> None:
        """The gateway's loop runs. `stall`: why audio does not move although there is some to move; "" if it moves."""
        if stall != self._stall:
            self._stall = stall
            log.log(logging.ERROR if stall else logging.INFO, "%s", stall or "audio moves again")
            self._report()
        if not stall:
            self._send("WATCHDOG=1")

    # ---------------------------------------------------------------- STATUS=

    def _report(self) -> None:
        if self._status != (text := self._new_status()):
            self._send(text)
            self._status = text

    def _new_status(self) -> str:
        """One line for `systemctl status`: the phase, and each role that is not ready."""
        faults = [f"{one.role} {one.state}" + f": {one.reason}" * bool(one.reason) for one in self._away()]
        if self._stall:
            faults.insert(0, self._stall)
        facts = [self._text] if self._text and self._phase == "ready" and not faults else faults
        return f"STATUS={self._phase}" + f"; {'; '.join(facts)}" * bool(facts)

    def _away(self) -> list[RoleState]:
        return [one for one in self._roles.values() if one.state != READY]
