"""The wyoming role: a voice service for Home Assistant, as a client of the daemon.

    python -m glowd.daemon.wyoming --run-dir D [--config F]

Rules: what is served is glowd.clients.wyoming, which knows only the protocol. serving.py, which needs the package `wyoming`, is
imported when it runs, so that a package that is missing is told as the reason. The daemon works without this role.
"""

import asyncio

from glowd.daemon.runtime.front import imported
from glowd.daemon.runtime.role import Role


def main() -> None:
    """Run the role."""
    with Role.start("wyoming") as role:
        with imported("wyoming", ("wyoming",)):
            from glowd.daemon.wyoming.serving import serve
        asyncio.run(serve(role, role.config.wyoming))
