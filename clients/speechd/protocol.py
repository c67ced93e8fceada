"""The lines between speech-dispatcher and its module.

Rules: no meaning: commands with their data in, replies and events out. Data is lines up to a single dot; a line that begins
with a dot has one more before it. Replies come from one thread, events from any.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

RECEIVING = {
    "SPEAK": "202 OK RECEIVING MESSAGE",
    "CHAR": "202 OK RECEIVING MESSAGE",
    "KEY": "202 OK RECEIVING MESSAGE",
    "SOUND_ICON": "202 OK RECEIVING MESSAGE",
    "SET": "203 OK RECEIVING SETTINGS",
    "AUDIO": "207 OK RECEIVING AUDIO SETTINGS",
    "LOGLEVEL": "207 OK RECEIVING LOGLEVEL SETTINGS",
}
"""Commands with data, and what is said before it is read."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line without its end, split at its first space, and the lines of its data."""

    name: str
    words: str = ""
    data: tuple[str, ...] = ()

    def settings(self) -> dict[str, str]:
        """The data as NAME=VALUE. Raises ValueError for a line that is not."""
        pairs = [line.partition("=") for line in self.data]
        if wrong := next((name for name, equals, _ in pairs if not equals), None):
            raise ValueError(f"expected NAME=VALUE, got {wrong!r}")
        return {name: value for name, _, value in pairs}


class Lines:
    """Both directions. `commands` ends when speech-dispatcher closes its end."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing, self._lock = incoming, outgoing, threading.Lock()

    def say(self, *lines: str) -> None:
        """Write lines at once, so that no other thread's lines come between them."""
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._lock:
            self._outgoing.write(data)
            self._outgoing.flush()

    def commands(self) -> Iterator[Command]:
        """The commands, each with its data."""
        while (line := self._line()) is not None:
            name, _, words = line.strip().partition(" ")
            if name in RECEIVING:
                self.say(RECEIVING[name])
                data = tuple(self._data())
                yield Command(name, words, data)
            elif name:
                yield Command(name, words)

    def _data(self) -> Iterator[str]:
        while (line := self._line()) not in (None, "."):
            assert line is not None, "it was compared"
            yield line.removeprefix(".")

    def _line(self) -> str | None:
        """The next line without its end; None at the end of the input."""
        line = self._incoming.readline()
        return line.decode("utf-8", "replace").removesuffix("\n") if line else None
