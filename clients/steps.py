"""What the parts of a connection share: how they wait, and what they need of it.

Rules: declarations only.
"""

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from glowd.daemon import wire
from glowd.daemon.wire import Message

T = TypeVar("T")
Steps = Generator[str, None, T]
"""What may have to wait: it yields what it waits for, in words, whenever it needs a new message from the daemon."""


class ConnectionPorts(Protocol):
    """What a stream or a listener needs of its connection."""

    welcome: wire.Welcome | None
    daemon_ahead_ns: int

    @property
    def usable(self) -> bool: ...
    def send(self, message: Message) -> None: ...
    def forget(self, stream: Any) -> None: ...
    def now_ns(self) -> int: ...
    def check(self) -> None: ...
