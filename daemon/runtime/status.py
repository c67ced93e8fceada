"""The lines between the supervisor and a role: one JSON map a line.

    {"ready": {"device": "pulse"}}    once, when the role can work, with facts for `glowd`
    {"alive": 1}                      every second, from the role's own main loop, so that a loop that hangs is noticed;
                                      with "stall": "text" from the gateway if frames wait and no audio moves
    {"failed": "text"}                before the role gives up; with "settings": true if other settings are the only remedy

A role writes these to its standard output. The supervisor writes to the standard input of a role that asks for news:

    {"role": "engine:glow", "state": "away", "reason": "text"}    whenever the state of a role changes

Rules: lines are made and read here only; no process and no pipe.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

LOADING, READY, AWAY = "loading", "ready", "away"


@dataclass(frozen=True, slots=True)
class Ready:
    """The role can work. `info`: its sound device, for example."""

    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alive:
    """The main loop runs. `stall`: why no audio moves although frames wait; "" if it does, or there is none."""

    stall: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The role gives up, for the reason in `text`. `settings`: what it was told to run can run nowhere."""

    text: str
    settings: bool = False


Status = Ready | Alive | Failed


@dataclass(frozen=True, slots=True)
class RoleState:
    """How a role is: LOADING (it was started), READY, or AWAY. `reason`: why it ended last, until it is ready again."""

    role: str
    state: str
    reason: str = ""


def encode(status: Status) -> bytes:
    """The line, with its end."""
    match status:
        case Ready(info):
            line: dict[str, Any] = {"ready": dict(info)}
        case Alive(stall):
            line = {"alive": 1, "stall": stall} if stall else {"alive": 1}
        case Failed(text, settings):
            line = {"failed": text, "settings": True} if settings else {"failed": text}
    return _line(line)


def parse(line: bytes) -> Status | None:
    """The status in a line; None for a line that is no status."""
    match _map(line):
        case {"failed": text, **more}:
            return Failed(str(text), more.get("settings") is True)
        case {"ready": dict(info)}:
            return Ready(info)
        case {"alive": _, **more}:
            return Alive(str(more.get("stall", "")))
    return None


def encode_news(news: RoleState) -> bytes:
    """The line, with its end."""
    return _line(asdict(news))


def parse_news(line: bytes) -> RoleState | None:
    """The news in a line; None for a line that is none."""
    match _map(line):
        case {"role": str(role), "state": str(state), "reason": str(reason)}:
            return RoleState(role, state, reason)
    return None


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _map(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
