"""What goes wrong with one stream, client or voice stays with it: the others go on.

Rules: whatever nobody foresaw is caught here and nowhere else in the gateway, logged with its traceback, and becomes the
error of the one it concerns. What was foreseen is a WireError, and passes.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from glowd.daemon.wire import LocalError, WireError

log = logging.getLogger("glowd.gateway")


class contained(AbstractContextManager[None]):
    """Run the block; if it raises, call `give_up` with the reason. A WireError passes.

    `what` is done, for the log; `about` is put into its `{}`. A class, because each message passes such a block, and a generator
    takes twice as long.
    """

    __slots__ = "_about", "_give_up", "_what"

    def __init__(self, what: str, give_up: Callable[[str], object], *about: str) -> None:
        self._what, self._give_up, self._about = what, give_up, about

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, WireError):
            return False
        give_up(error, self._what.format(*self._about) if self._about else self._what, self._give_up)
        return True


def give_up(error: Exception, what: str, give_up_one: Callable[[str], object]) -> None:
    """`what` was done and has met a mistake of ours: log it, and call `give_up_one` with the reason."""
    log.error("%s failed; only that is given up", what, exc_info=error)
    try:
        give_up_one(reason(error))
    except Exception:  # the edge between peers
        log.exception("%s could not be given up in order", what)


def reason(error: Exception) -> str:
    """The text for the peer: what it was, and that it is not the peer's doing."""
    text = str(error) if isinstance(error, LocalError) else f"{type(error).__name__}: {error}"
    return f"the daemon made a mistake, please report it ({text}); its log has the place"
