"""The routes of the web process.

Rules: a list of routes; each group of handlers has a file of its own, and takes what they share from shared.py. Protection is
around everything (protection.py): a path is for those who have the token, unless PUBLIC there names it. A GET changes nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from glowd.clients.errors import GlowdError
from glowd.clients.web.api_error import ApiError
from glowd.clients.web.figures import Figures
from glowd.clients.web.mel_api import MelEndpoint
from glowd.clients.web.metrics import metrics
from glowd.clients.web.page import live
from glowd.clients.web.pool import Pool
from glowd.clients.web.protection import Protection
from glowd.clients.web.shared import Shared, shared_of
from glowd.clients.web.site import Site
from glowd.clients.web.speech_api import speech
from glowd.clients.web.voices import voice_named

STATIC = Path(__file__).parent / "static"


async def front_page(_: Request) -> FileResponse:
    """GET /: the page. It is the same for everyone; it gets its content by /live."""
    return FileResponse(STATIC / "index.html")


async def health(request: Request) -> JSONResponse:
    """GET /health: 200 while the daemon publishes its figures, else 503; `daemon` is its state."""
    figures = shared_of(request).figures
    state = str(figures.newest.get("state", "")) if figures.newest and figures.fresh else "away"
    return JSONResponse({"daemon": state}, 200 if figures.fresh else 503)


async def ready(request: Request) -> JSONResponse:
    """GET /ready: 200 while a text would be spoken: the daemon takes streams, and its default voice is ready. Else 503."""
    figures = shared_of(request).figures
    if figures.newest and (state := figures.newest.get("state")) in ("cordoned", "draining", "stopping"):
        return JSONResponse({"ready": False, "reason": f"the daemon is {state}"}, 503)
    try:
        async with shared_of(request).pool.client() as client:
            voice = voice_named(client, "default")
    except (ApiError, GlowdError) as fault:
        return JSONResponse({"ready": False, "reason": str(fault)}, 503)
    return JSONResponse({"ready": True, "voice": voice.name})


ROUTES: list[BaseRoute] = [
    Route("/metrics", metrics, methods=["GET"]),
    Route("/health", health, methods=["GET"]),
    Route("/ready", ready, methods=["GET"]),
    Route("/v1/audio/speech", speech, methods=["POST"]),
    Route("/v1/mel", MelEndpoint(), methods=["POST"]),
    Route("/", front_page, methods=["GET"]),
    Mount("/static", StaticFiles(directory=STATIC)),
    WebSocketRoute("/live", live),
]


def create_app(site: Site) -> ASGIApp:
    """The whole application, protected."""
    shared = Shared(site, Figures(site.telemetry), Pool(site.endpoint))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(shared.figures.follow())
        yield
        following.cancel()
        await asyncio.gather(following, *shared.leaving, return_exceptions=True)
        await shared.pool.close()

    app = Starlette(routes=ROUTES, lifespan=lifespan)
    app.state.shared = shared
    return Protection(app, site)
