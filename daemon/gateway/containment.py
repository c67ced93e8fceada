"""What goes wrong with one stream, client or voice stays with it: the others go on.

Rules: whatever nobody foresaw is caught here and nowhere else in the gateway, logged with its traceback, and becomes the
error of the one it concerns. What was foreseen is a WireError, and passes.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from glowd.daemon.gateway.session import Session
from glowd.daemon.wire import Code, LocalError, WireError

log = logging.getLogger("glowd.gateway")


@contextlib.contextmanager
def contained(what: str, give_up: Callable[[str], object]) -> Iterator[None]:
    """Run the block; if it raises, call `give_up` with the reason. `what` is done, for the log. A WireError passes."""
    try:
        yield
    except WireError:
        raise
    except Exception as error:  # the edge between peers
        log.exception("%s failed; only that is given up", what)
        try:
            give_up(reason(error))
        except Exception:  # the edge between peers
            log.exception("%s could not be given up in order", what)


def reason(error: Exception) -> str:
    """The text for the peer: what it was, and that it is not the peer's doing."""
    text = str(error) if isinstance(error, LocalError) else f"{type(error).__name__}: {error}"
    return f"the daemon made a mistake, please report it ({text}); its log has the place"


def for_each(sessions: Iterable[Session], what: str, action: Callable[[Session], object]) -> None:
    """Do something to each session. One that cannot take it fails, and the others are not held up."""
    for session in sessions:
        with contained(f"stream {session.state.name}: {what}", partial(session.state.fail, Code.INTERNAL)):
            action(session)
