"""The socket of a service manager, as systemd makes it for a service."""

import queue
import socket
import threading
import time
from pathlib import Path

from tests.harness.waiting import WAIT_S

Message = dict[str, str]
MARK = "MARK"


class NotifySocket:
    """Receives what a daemon with `env` tells its service manager. A thread reads, so that the daemon need not wait."""

    def __init__(self, path: Path | str) -> None:
        """`path` "@NAME": in the abstract namespace."""
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}
        self._address = str(path).replace("@", "\0", 1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._address)
        self._arrived: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.seen: list[Message] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while (text := self._socket.recv(1 << 16).decode()) != MARK + "=end":
            lines = text.splitlines()
            self._arrived.put(None if lines == [f"{MARK}=1"] else dict(line.split("=", 1) for line in lines))

    def _mark(self, value: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"{MARK}={value}".encode(), self._address)

    def _take(self, message: Message) -> Message:
        self.seen.append(message)
        return message

    def expect(self, variable: str, value: str = "", timeout_s: float = WAIT_S) -> Message:
        """The next message with a variable (of that value); others are skipped. Raises TimeoutError."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                message = self._arrived.get(timeout=left_s)
            except queue.Empty:
                break
            if message and variable in self._take(message) and value in ("", message[variable]):
                return message
        raise TimeoutError(f"no {variable}={value} came; these did: {self.seen[-20:]}")

    def drain(self) -> list[Message]:
        """What was sent so far and was not taken."""
        self._mark("1")
        return [self._take(message) for message in iter(self._arrived.get, None)]

    def close(self) -> None:
        """No more messages are taken."""
        if self._thread.is_alive():
            self._mark("end")
            self._thread.join()
            self._socket.close()
