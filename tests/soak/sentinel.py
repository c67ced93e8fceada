"""How late threads wake on this machine, whatever glowd does: on each core one at the speaker's real-time priority, and one as
its parent.

Run as `python -m tests.soak.sentinel`: each second a line with both, the longest of the second, in milliseconds. A process of
its own, so that no other thread of its program holds it up. One for each core, because a virtual machine may lose one of them
for a while, and a thread that may run anywhere wakes on another.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from glowd.daemon.runtime.system import request_realtime_priority

NAP_S = 0.005
KEPT_S = 120


def watch(longest: dict[str, float], name: str, core: int | None) -> None:
    """Without end: note how late this thread wakes, at real-time priority on a core, or as its parent."""
    if core is not None:
        os.sched_setaffinity(0, {core})
        request_realtime_priority()
    before_s = time.monotonic()
    while True:
        time.sleep(NAP_S)
        now_s = time.monotonic()
        longest[name] = max(longest.get(name, 0.0), now_s - before_s - NAP_S)
        before_s = now_s


def main() -> None:
    """Print both once a second, until nobody reads."""
    longest: dict[str, float] = {}
    cores = {f"core {core}": core for core in os.sched_getaffinity(0)}
    for name, core in {**cores, "plain": None}.items():
        threading.Thread(target=watch, args=(longest, name, core), daemon=True).start()
    while True:
        time.sleep(1)
        print(1000 * max(longest.pop(name, 0.0) for name in cores), 1000 * longest.pop("plain", 0.0), flush=True)


class Sentinels:
    """The process, within its `with`, and what it has said lately."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[float, float, float]] = deque(maxlen=KEPT_S)
        self._process: subprocess.Popen[str] | None = None

    def longest_ms(self, begin_s: float, end_s: float) -> tuple[float, float]:
        """How late at worst in this time, real-time and plain; 0 where nothing is known."""
        found = [(real, plain) for at_s, real, plain in list(self._seconds) if begin_s <= at_s and at_s - 1 <= end_s]
        return max((real for real, _ in found), default=0.0), max((plain for _, plain in found), default=0.0)

    def _read(self) -> None:
        assert self._process and self._process.stdout
        for line in self._process.stdout:
            real, plain = map(float, line.split())
            self._seconds.append((time.monotonic(), real, plain))

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.soak.sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, name="soak-sentinels", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    main()
