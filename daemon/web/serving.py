"""The web role's loop: from its settings to a listening socket, served until the role is to stop.

Rules: one event loop; status and stopping are the role's.
"""

import asyncio
import logging
import socket

from glowd.clients.web.server import Server, make_server
from glowd.clients.web.site import Site
from glowd.daemon.config import LOOPBACK, WebSettings
from glowd.daemon.runtime.front import bound
from glowd.daemon.runtime.role import CannotStart, Role
from glowd.daemon.runtime.rundir import addresses
from glowd.daemon.web.token import FILE, web_token

STEP_S = 0.1
UNSPECIFIED = ("0.0.0.0", "[::]")

log = logging.getLogger("glowd")


def site_of(role: Role, settings: WebSettings) -> Site:
    """What the web process needs to know. Raises CannotStart if the token cannot be kept."""
    found = addresses(role.config.server, role.run_dir)
    try:
        token = web_token(role.run_dir)
    except OSError as error:
        raise CannotStart(f"cannot write {role.run_dir / FILE}: {error.strerror}") from None
    return Site(
        endpoint=found.clients,
        telemetry=found.telemetry,
        token=token,
        hosts=frozenset(name.lower() for name in (*settings.hosts, settings.host)) - set(UNSPECIFIED),
        any_address=settings.host not in LOOPBACK,
        max_pages=settings.max_pages,
        listener_s=settings.listener_s,
        cushion_ms=settings.cushion_ms,
        tts=settings.tts,
    )


def address(settings: WebSettings, listening: socket.socket) -> str:
    """The address of the page, for a browser on this machine."""
    host = "127.0.0.1" if settings.host in UNSPECIFIED else settings.host
    return f"http://{host}:{listening.getsockname()[1]}/"


async def serve(role: Role, settings: WebSettings) -> None:
    """Serve until the role is to stop. Raises CannotStart."""
    site = site_of(role, settings)
    server = make_server(site)
    with bound("web", settings.host, settings.port) as listening:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            tasks.create_task(report(role, server, address(settings, listening), site.token))


async def report(role: Role, server: Server, url: str, token: str) -> None:
    """Report ready and alive; tell the server to stop when the role is to."""
    while not server.started:
        await asyncio.sleep(STEP_S)
    role.ready(url=f"{url}#token={token}")
    log.info("the page is at %s; its token is in %s", url, role.run_dir / FILE)
    while not role.stopping.is_set():
        role.alive()
        await asyncio.sleep(STEP_S)
    server.should_exit = True
