"""SIGHUP: reload the settings, unless it says what it once meant, that the terminal of this process is gone.

Rules: signals and the terminal only. A program at a terminal ends when that is closed, except if it was started by nohup.
"""

import contextlib
import os
import signal
from collections.abc import Callable


class Hangup:
    """Tells the two apart. Make it at the start of the process, before a handler is set."""

    def __init__(self, reload: Callable[[], object], stop: Callable[[], object]) -> None:
        self._reload, self._stop = reload, stop
        self._had_terminal = has_terminal()
        self._survives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # so nohup sets it

    def __call__(self) -> None:
        """The signal has arrived."""
        is_gone = self._had_terminal and not has_terminal()
        if not is_gone:
            self._reload()
        elif not self._survives:
            self._stop()


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return True
    return False
