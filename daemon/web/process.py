"""The web role: serves the browser page and HTTP, as a client of the daemon.

    python -m glowd.daemon.web --run-dir D [--config F]

Rules: what is served is glowd.clients.web, which knows only the protocol. serving.py, which needs the packages of the extra
`web`, is imported when it runs, so that a package that is missing is told as the reason. The daemon works without this role.
"""

import asyncio

from glowd.daemon.runtime.front import imported
from glowd.daemon.runtime.role import Role

PACKAGES = ("starlette", "uvicorn", "websockets", "prometheus-client")
"""Those of the extra `web`."""


def main() -> None:
    """Run the role."""
    with Role.start("web") as role:
        with imported("web", PACKAGES):
            from glowd.daemon.web.serving import serve
        asyncio.run(serve(role, role.config.web))
