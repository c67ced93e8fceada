"""The web role: serves the browser page and HTTP, as a client of the daemon.

    python -m glowd.daemon.web --run-dir D [--config F]

Rules: what is served is glowd.clients.web, which knows only the protocol. serving.py, which needs the packages of the extra
`web`, is imported when it runs, so that a package that is missing is told as the reason. The daemon works without this role.
"""

import asyncio
import sys

from glowd.daemon.runtime.role import CannotStart, Role

PACKAGES = ("starlette", "uvicorn", "websockets", "prometheus-client")
"""Those of the extra `web`."""


def missing(error: ModuleNotFoundError) -> CannotStart:
    """Why the role cannot start. Raises `error` again if the module is one of ours: then it is our mistake."""
    package = (error.name or "glowd").partition(".")[0]
    if package == "glowd":
        raise error
    return CannotStart(
        f"web.enabled needs the package {package}, which is not installed; "
        f"install it with: {sys.executable} -m pip install {' '.join(PACKAGES)}"
    )


def main() -> None:
    """Run the role."""
    with Role.start("web") as role:
        try:
            from glowd.daemon.web.serving import serve
        except ModuleNotFoundError as error:
            raise missing(error) from None
        asyncio.run(serve(role, role.config.web))
