"""What a client may do: one table of rules, and nothing that is not in it.

    role            allows
    push            streams of one's own: open, mel, end, flush, pause, resume, gain, close
    listen GLOB     the audio of streams with such names, those of others too
    control GLOB    flush, pause, resume and gain of streams of others with such names
    metrics         status, and the telemetry
    engine          to join as an engine, and nothing else
    admin           everything that clients do

Rules: no I/O. hello, ping and bye are for everyone that was let in. Clients on this machine, at the daemon's own socket, are of
the daemon's user and may do everything. GLOB is a pattern of file names: * any characters, ? one, [ab] one of these.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from glowd.daemon import wire
from glowd.daemon.wire.fields import Message

SINGLE = ("push", "metrics", "engine", "admin")
ROLES = ("push", "listen GLOB", "control GLOB", "metrics", "engine", "admin")
FREE = (wire.Hello, wire.Ping, wire.Bye, wire.Unlisten)
CONTROL = (wire.Flush, wire.Pause, wire.Resume, wire.Gain)
OWN = (wire.Open, wire.Mel, wire.End, *CONTROL, wire.Close)
PATTERN = re.compile(r"(listen|control) [A-Za-z0-9._*?\[\]-]{1,64}")


class RoleError(ValueError):
    """A role that does not exist."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What one client may do."""

    push: bool = False
    metrics: bool = False
    admin: bool = False
    engine: bool = False
    listen: tuple[str, ...] = ()
    control: tuple[str, ...] = ()

    @classmethod
    def of(cls, roles: Sequence[str]) -> "Rights":
        """Those of these roles together. Raises RoleError."""
        for role in roles:
            if role not in SINGLE and not (isinstance(role, str) and PATTERN.fullmatch(role)):
                raise RoleError(f"{role!r:.80} is no role; allowed: {', '.join(ROLES)}")
        if not roles:
            raise RoleError(f"a key without a role may do nothing; give one or more of: {', '.join(ROLES)}")
        if "engine" in roles and len(roles) > 1:
            raise RoleError("a key with the role engine has no other: engines join at an address of their own")
        globs = {kind: tuple(r.split()[1] for r in roles if r.startswith(f"{kind} ")) for kind in ("listen", "control")}
        push, metrics, engine, admin = (name in roles for name in SINGLE)
        return cls(push, metrics, admin, engine, **globs)

    @property
    def roles(self) -> list[str]:
        """As `of` takes them."""
        single = [name for name in SINGLE if getattr(self, name)]
        return [*single, *(f"listen {glob}" for glob in self.listen), *(f"control {glob}" for glob in self.control)]

    @property
    def watches(self) -> bool:
        """Whether the telemetry may be read."""
        return self.metrics or self.admin

    def lacks(self, message: Message, is_own: bool) -> str:
        """The role that a message needs and this client does not have; "" if it may send it.

        `is_own`: the stream that the message names is the client's own.
        """
        stream = str(getattr(message, "stream", ""))
        match message:
            case _ if self.admin or isinstance(message, FREE):
                return ""
            case wire.Listen():
                return "" if _allows(self.listen, stream) else f"listen {stream}"
            case wire.Status():
                return "" if self.metrics else "metrics"
            case _ if isinstance(message, CONTROL) and not is_own:
                return "" if _allows(self.control, stream) else f"control {stream}"
            case _ if isinstance(message, OWN):
                return "" if self.push else "push"
        return "admin"


def _allows(globs: Sequence[str], stream: str) -> bool:
    """Whether a stream's name is among these; all streams ("*") only where all are allowed."""
    return "*" in globs if stream == "*" else any(fnmatchcase(stream, glob) for glob in globs)


EVERYTHING = Rights(admin=True)
"""Of the clients on this machine."""
