"""The status lines of a role: what it writes to standard output, and the supervisor reads. One JSON map a line.

    {"ready": {"device": "pulse"}}    once, when the role can work, with facts for `glowd`
    {"alive": 1}                      every second, from the role's own main loop, so that a loop that hangs is noticed
    {"failed": "text"}                before the role gives up

Rules: lines are made and read here only; no process and no pipe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ready:
    """The role can work. `info`: its sound device, for example."""

    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alive:
    """The main loop runs."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The role gives up, for the reason in `text`."""

    text: str


Status = Ready | Alive | Failed


def encode(status: Status) -> bytes:
    """The line, with its end."""
    match status:
        case Ready(info):
            line: dict[str, Any] = {"ready": dict(info)}
        case Alive():
            line = {"alive": 1}
        case Failed(text):
            line = {"failed": text}
    return (json.dumps(line) + "\n").encode()


def parse(line: bytes) -> Status | None:
    """The status in a line; None for a line that is no status."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    match found:
        case {"failed": text}:
            return Failed(str(text))
        case {"ready": dict(info)}:
            return Ready(info)
        case {"alive": _}:
            return Alive()
    return None
