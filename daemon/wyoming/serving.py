"""The wyoming role's loop: from its settings to a listening socket, served until the role is to stop.

Rules: one event loop; status and stopping are the role's.
"""

import asyncio
import logging

from glowd.clients.upstream import Upstream, UpstreamError, open_upstream
from glowd.clients.wyoming.server import Service, serving
from glowd.daemon.config import WyomingSettings
from glowd.daemon.runtime.front import bound
from glowd.daemon.runtime.role import CannotStart, Role
from glowd.daemon.runtime.rundir import addresses

STEP_S = 0.1

log = logging.getLogger("glowd")


def upstream_of(settings: WyomingSettings) -> Upstream:
    """What makes mels of texts. Raises CannotStart if it is not installed."""
    try:
        return open_upstream(settings.tts, settings.tts_voice)
    except UpstreamError as error:
        raise CannotStart(f"wyoming.tts cannot be used: {error}") from None


async def serve(role: Role, settings: WyomingSettings) -> None:
    """Serve until the role is to stop. Raises CannotStart."""
    loading = asyncio.create_task(asyncio.to_thread(upstream_of, settings))
    while not loading.done():
        role.alive()
        await asyncio.sleep(STEP_S)
    upstream = loading.result()
    endpoint = addresses(role.config.server, role.run_dir).clients
    with bound("wyoming", settings.host, settings.port) as listening:
        async with serving(Service(endpoint, upstream, settings.languages), listening):
            uri = f"tcp://{settings.host}:{listening.getsockname()[1]}"
            role.ready(uri=uri)
            log.info("Wyoming is at %s; texts are spoken by %s", uri, upstream.name)
            while not role.stopping.is_set():
                role.alive()
                await asyncio.sleep(STEP_S)
