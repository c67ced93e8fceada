"""How every process of the daemon logs: to standard error, one printable line for each record."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

from glowd.flow.recognition.printable import escaped


class LineFormatter(logging.Formatter):
    """`12:34:56.789 gateway WARNING text`; an exception is `[module:line function > ... > error]`."""

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d {role} %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record as one printable line."""
        return escaped(super().format(record))

    def formatException(self, ei: Any) -> str:
        """The traceback on one line, outermost call first."""
        frames = [f"{Path(f.filename).stem}:{f.lineno} {f.name}" for f in traceback.extract_tb(ei[2])]
        return "[" + " > ".join([*frames, f"{ei[0].__name__}: {ei[1]}"]) + "]"


def setup_logging(role: str, level: str) -> None:
    """Send the log to standard error in our format; replaces an earlier set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(role))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
