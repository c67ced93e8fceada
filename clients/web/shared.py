"""What the handlers of the web process share.

Rules: one object for each process, in the application's state; no routes.
"""

import asyncio
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from glowd.clients.web.figures import Figures
from glowd.clients.web.pool import Pool
from glowd.clients.web.site import Site


@dataclass(frozen=True, slots=True)
class Shared:
    """What handlers share. `site.endpoint` is where a client of the daemon connects."""

    site: Site
    figures: Figures
    pool: Pool
    pages: set[object] = field(default_factory=set)
    """The pages that are open."""
    leaving: set["asyncio.Task[None]"] = field(default_factory=set)
    """What pages that were closed still have to close; the process ends after them."""


def shared_of(connection: HTTPConnection) -> Shared:
    """What the handler of a request or a WebSocket shares with the others."""
    shared = connection.app.state.shared
    assert isinstance(shared, Shared)
    return shared
