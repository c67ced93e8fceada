"""The routes of the web process.

Rules: a list of routes; each group of handlers has a file of its own, and takes what they share from shared.py. Protection is
around everything (protection.py): a path is for those who have the token, unless PUBLIC there names it. A GET changes nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from glowd.clients.web.figures import Figures
from glowd.clients.web.protection import Protection
from glowd.clients.web.shared import Shared, shared_of
from glowd.clients.web.site import Site


async def health(request: Request) -> JSONResponse:
    """GET /health: 200 while the daemon publishes its figures, else 503; `daemon` is its state."""
    figures = shared_of(request).figures
    state = str(figures.newest.get("state", "")) if figures.newest and figures.fresh else "away"
    return JSONResponse({"daemon": state}, 200 if figures.fresh else 503)


ROUTES: list[BaseRoute] = [
    Route("/health", health, methods=["GET"]),
]


def create_app(site: Site) -> ASGIApp:
    """The whole application, protected."""
    shared = Shared(site, Figures(site.telemetry))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(shared.figures.follow())
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    app = Starlette(routes=ROUTES, lifespan=lifespan)
    app.state.shared = shared
    return Protection(app, site)
