"""The messages between the gateway and an engine on another machine: those of ipc.py, and how an engine joins and leaves.

Rules of this file: as in ipc.py. The engine connects to `server.engines`, or the gateway to an engine that listens
(`server.dial_engines`); either way the engine has a key with the role engine, and nobody else gets so far. The two may be of
neighbouring versions: an unknown field is ignored, an unknown message is ignored once it is logged, and a message that came with
a later version of the link is sent only where that version was agreed. Taken and JoinAgain are sent where nothing was agreed,
too: who does not know them ignores them, as whatever comes before Join.

    engine   Taken      to gateways that have dialled an engine which another one has, again and again. Since version 3
    engine   Join       until it is answered
    gateway  Joined     the version that both speak, and the engine's name; or TurnedAway, which ends the engine
    engine   Ready      at once, and then every second, as an engine on this machine does
    ...                 Start, Frames, Pcm, Load ... as on this machine
    gateway  Probe      now and then; it is answered at once by Echo. Both since version 2
    engine   Leaving    it wants to end: no more new streams, and those it has move on when their utterance ends
    gateway  Dismissed  it has no stream any more and may end
    gateway  JoinAgain  to a Ready by a connection that it does not know, or not any more. Since version 4; TurnedAway before

Times are those of the sender's clock; the times of client and gateway that came with frames go back as they are. link.py of the
gateway moves those of an engine into the gateway's clock.

A connection that is lost is a new beginning: the engine drops every stream and sends Join, and is given again what is still
to be rendered. So is JoinAgain. An engine that stands still keeps its connection while the gateway takes it for lost: another
engine may get its name meanwhile, or it is forgotten. A gateway that is started again has no connection of the last one.
"""

from collections.abc import Sequence
from typing import Any

from glowd.daemon import ipc
from glowd.daemon.wire.codec import Codec
from glowd.daemon.wire.fields import Message, identifier, integer, message, nanoseconds, string

VERSION, OLDEST_VERSION = 4, 1
"""Of this link."""
PROBES_SINCE, JOIN_AGAIN_SINCE = 2, 4
"""The first versions with Probe and Echo, and with JoinAgain."""


@message
class Join(Message):
    """An engine offers itself. `engine`: what it calls itself. `instance`: as in Ready. `host`: names the machine.

    `cores`: of that machine, which its engines share. `chunk_frames` and `max_chunk_frames`: its steps.
    """

    version: int = integer(1, 1 << 16)
    oldest_version: int = integer(1, 1 << 16)
    voice: str = identifier()
    engine: str = identifier()
    instance: int = integer()
    host: str = string(200)
    cores: int = integer(1, 1 << 16)
    chunk_frames: int = integer(1, 1 << 16)
    max_chunk_frames: int = integer(1, 1 << 16)


@message
class Joined(Message):
    """The gateway knows the engine, by this name, and speaks this version with it. `gateway`: how that is called by people."""

    version: int = integer(1, 1 << 16)
    name: str = string(200)
    gateway: str = string(200, default="", added=True)


@message
class Taken(Message):
    """The engine has a gateway already, which `by` names for people. When that is gone, the engine ends all connections."""

    by: str = string(500)


@message
class TurnedAway(Message):
    """The gateway does not use the engine, for the reason in `text`, which is for people."""

    text: str = string(1000)


@message
class Leaving(Message):
    """The engine wants to end. It serves until it is dismissed."""


@message
class Dismissed(Message):
    """No stream needs the engine any more."""


@message
class JoinAgain(Message):
    """The gateway does not know the engine of this connection: it is to drop every stream and send Join."""


@message
class Probe(Message):
    """The gateway measures the link: it has sent this at `t_sent_ns` of its clock."""

    t_sent_ns: int = nanoseconds()


@message
class Echo(Message):
    """The answer to a Probe: it was read at `t_read_ns` and answered at `t_echo_ns` of the engine's clock.

    `unread_ns`: how long it may have lain unread before, because the engine was computing.
    """

    t_sent_ns: int = nanoseconds()
    t_read_ns: int = nanoseconds()
    t_echo_ns: int = nanoseconds()
    unread_ns: int = nanoseconds(default=0)


CODEC = Codec(
    [
        *(Taken, Join, Joined, JoinAgain, TurnedAway, Leaving, Dismissed, Probe, Echo),
        *(ipc.Start, ipc.Frames, ipc.Finish, ipc.Drop, ipc.DropAll),
        *(ipc.Ready, ipc.Pcm, ipc.Failed, ipc.Load),
    ]
)


def agreed_version(join: Join) -> int | None:
    """The version that the sender of a Join and this side both speak; None if there is none."""
    version = min(join.version, VERSION)
    return version if version >= max(join.oldest_version, OLDEST_VERSION) else None


def encode(msg: Message) -> list[bytes]:
    """The parts of a multipart message. Raises LocalError if `msg` breaks its own declaration."""
    return CODEC.encode(msg)


def decode(parts: Sequence[Any]) -> Message:
    """The message in `parts`. Raises WireError."""
    return CODEC.decode(parts, ipc.LIMITS)
