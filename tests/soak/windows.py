"""The times in which a soak disturbs the daemon. Outside of them nothing may be missing.

Rules: thread-safe; times are of the monotonic clock and are passed in.
"""

import threading
from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Window:
    """One disturbance, from its beginning until the daemon was whole again; `end_s` is infinite until then."""

    what: str
    begin_s: float
    end_s: float = inf

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end_s - self.begin_s


class Windows:
    """All disturbances of a soak, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Window] = []

    def begin(self, what: str, at_s: float) -> Window:
        """A disturbance begins."""
        window = Window(what, at_s)
        with self._lock:
            self._all.append(window)
        return window

    def end(self, window: Window, at_s: float) -> None:
        """It is over."""
        with self._lock:
            window.end_s = at_s

    def touches(self, begin_s: float, end_s: float) -> bool:
        """Whether a disturbance falls into this time."""
        with self._lock:
            return any(window.begin_s <= end_s and begin_s <= window.end_s for window in reversed(self._all))

    @property
    def all(self) -> list[Window]:
        """A copy."""
        with self._lock:
            return list(self._all)
