"""The messages between the gateway and an engine on another machine: those of ipc.py, and how an engine joins and leaves.

Rules of this file: as in ipc.py. The engine connects to `server.engines` with a key that has the role engine, and nobody else
gets so far. The two may be of neighbouring versions: an unknown field is ignored, an unknown message is ignored once it is
logged, and a message that came with a later version of the link is sent only where that version was agreed.

    engine   Join       until it is answered
    gateway  Joined     the version that both speak, and the engine's name; or TurnedAway, which ends the engine
    engine   Ready      at once, and then every second, as an engine on this machine does
    ...                 Start, Frames, Pcm, Load ... as on this machine
    engine   Leaving    it wants to end: no more new streams, and those it has move on when their utterance ends
    gateway  Dismissed  it has no stream any more and may end

A connection that is lost is a new beginning: the engine drops every stream and sends Join, and is given again what is still
to be rendered.
"""

from collections.abc import Sequence
from typing import Any

from glowd.daemon import ipc
from glowd.daemon.wire.codec import Codec
from glowd.daemon.wire.fields import Message, identifier, integer, message, string

VERSION, OLDEST_VERSION = 1, 1
"""Of this link."""


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
    """The gateway knows the engine, by this name, and speaks this version with it."""

    version: int = integer(1, 1 << 16)
    name: str = string(200)


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


CODEC = Codec(
    [
        *(Join, Joined, TurnedAway, Leaving, Dismissed),
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
