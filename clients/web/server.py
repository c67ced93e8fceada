"""The web process's listening socket and its server.

Rules: uvicorn with our limits; which routes there are is app.py's. Who runs it decides when it stops: it takes no signals.
"""

import contextlib
from collections.abc import Iterator

import uvicorn

from glowd.clients.web.app import create_app
from glowd.clients.web.site import Site

MAX_MESSAGE_BYTES = 1 << 16
"""Of a page: a text to speak is the longest."""
STOP_S = 1


class Server(uvicorn.Server):
    """uvicorn, which leaves the signals to its owner. Set `should_exit` to stop it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def make_server(site: Site) -> Server:
    """A server for `serve(sockets=[...])`."""
    config = uvicorn.Config(
        create_app(site),
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # audio does not get smaller
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
    )
    return Server(config)
