"""Single keys from a terminal, without waiting for Enter. If the file is not a terminal, no key is ever pressed."""

import select
import termios
import tty
from typing import TextIO


class Keyboard:
    """Reads keys within its `with`; restores the terminal's settings at its end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_terminal = file.isatty()

    def __enter__(self) -> "Keyboard":
        if self._is_terminal:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def pressed(self) -> str:
        """The next key that was pressed, "" if there is none."""
        if self._is_terminal and select.select([self._file], [], [], 0)[0]:
            return self._file.read(1)
        return ""
