"""The lines between the supervisor and a role: one JSON map a line.

    {"ready": {"device": "pulse"}}    once, when the role can work, with facts for `glowd`
    {"alive": 1}                      every second, from the role's own main loop, so that a loop that hangs is noticed;
                                      with "stall": "text" from the gateway if frames wait and no audio moves
    {"applied": 3}                    from the gateway: the third reload is done
    {"nodes": {...}}                  from the cluster role: the nodes of the Ray cluster (NodeSnapshot, wire/telemetry.py)
    {"released": "engine:glow"}       from the gateway: no stream needs this role, which the last settings do not have
    {"failed": "text"}                before the role gives up; with "settings": true if other settings are the only remedy

A role writes these to its standard output. The supervisor writes to the standard input of a role that asks for news:

    {"role": "engine:glow", "state": "away", "reason": "text"}    whenever the state of a role changes
    {"number": 3, "settings": "..."}                              the settings of the third reload (config_reader.as_text)
    {"nodes": {...}}                                              what the cluster role has said

and to that of every role:

    {"level": "debug"}                                            the new log.level

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


@dataclass(frozen=True, slots=True)
class Applied:
    """The settings of a reload are used."""

    number: int


@dataclass(frozen=True, slots=True)
class Released:
    """A role may stop: the settings do not have it any more, and no stream needs it."""

    role: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of the Ray cluster, as maps of NodeSnapshot; also news."""

    nodes: Mapping[str, Any] = field(default_factory=dict)


Status = Ready | Alive | Failed | Applied | Released | Nodes


@dataclass(frozen=True, slots=True)
class RoleState:
    """How a role is: LOADING (it was started), READY, or AWAY. `reason`: why it ended last, until it is ready again."""

    role: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NewSettings:
    """The settings of a reload."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class NewLevel:
    """The least severe level that is logged from now on."""

    level: str


News = RoleState | NewSettings | NewLevel | Nodes


def encode(status: Status) -> bytes:
    """The line, with its end."""
    match status:
        case Ready(info):
            line: dict[str, Any] = {"ready": dict(info)}
        case Alive(stall):
            line = {"alive": 1, "stall": stall} if stall else {"alive": 1}
        case Applied(number):
            line = {"applied": number}
        case Released(role):
            line = {"released": role}
        case Nodes(nodes):
            line = {"nodes": dict(nodes)}
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
        case {"applied": int(number)}:
            return Applied(number)
        case {"released": str(role)}:
            return Released(role)
        case {"nodes": dict(nodes)}:
            return Nodes(nodes)
    return None


def encode_news(news: News) -> bytes:
    """The line, with its end."""
    return _line({"number": news.number, "settings": news.text} if isinstance(news, NewSettings) else asdict(news))


def parse_news(line: bytes) -> News | None:
    """The news in a line; None for a line that is none."""
    match _map(line):
        case {"role": str(role), "state": str(state), "reason": str(reason)}:
            return RoleState(role, state, reason)
        case {"number": int(number), "settings": str(text)}:
            return NewSettings(number, text)
        case {"level": str(level)}:
            return NewLevel(level)
        case {"nodes": dict(nodes)}:
            return Nodes(nodes)
    return None


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _map(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
