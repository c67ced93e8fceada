"""The socket of a service manager, as systemd makes it for a service."""

import socket
import time
from pathlib import Path

from tests.harness.waiting import WAIT_S


class NotifySocket:
    """Receives what a daemon with `env` tells its service manager."""

    def __init__(self, path: Path | str) -> None:
        """`path` "@NAME": in the abstract namespace."""
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path).replace("@", "\0", 1))
        self.seen: list[dict[str, str]] = []

    def next(self, timeout_s: float = WAIT_S) -> dict[str, str]:
        """The next message, as a map. Raises TimeoutError."""
        self._socket.settimeout(timeout_s)
        lines = self._socket.recv(1 << 16).decode().splitlines()
        self.seen.append(dict(line.split("=", 1) for line in lines))
        return self.seen[-1]

    def expect(self, variable: str, value: str = "", timeout_s: float = WAIT_S) -> dict[str, str]:
        """The next message with a variable (of that value); others are skipped."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            message = self.next(left_s)
            if variable in message and value in ("", message[variable]):
                return message
        raise TimeoutError(f"no {variable}={value} came; these did: {self.seen[-20:]}")

    def drain(self) -> list[dict[str, str]]:
        """What has arrived so far and was not read."""
        found = []
        while True:
            try:
                found.append(self.next(0.001))
            except TimeoutError:
                return found

    def close(self) -> None:
        """No more messages are taken."""
        self._socket.close()
