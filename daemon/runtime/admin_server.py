"""The socket at which the supervisor is asked for what wire/admin.py says.

Rules: asyncio; knows no request but those that it is given. The run directory may be emptied under the daemon: `renew`.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from glowd.daemon.wire.admin import ADMIN_SOCKET
from glowd.daemon.wire.json_text import read_json
from glowd.daemon.wire.records import Record

READ_S, MAX_LINE_BYTES = 10.0, 4096

log = logging.getLogger("glowd")


class AdminServer:
    """Answers requests. `requests`: by name what is done with a request's map, and gives the answer."""

    def __init__(self, directory: Path, requests: Mapping[str, Callable[[dict[str, Any]], Awaitable[Record]]]) -> None:
        self._path, self._requests = directory / ADMIN_SOCKET, requests
        self._server: asyncio.Server | None = None

    async def renew(self) -> None:
        """Listen, if the socket is not there."""
        if self._server and self._path.is_socket():
            return
        self.close()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._server = await asyncio.start_unix_server(self._answer, self._path, limit=MAX_LINE_BYTES)

    def close(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer_to(await asyncio.wait_for(reader.readline(), READ_S))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:  # the peer is gone, or has sent no line
            log.debug("a request was not answered: %s", error)
        finally:
            writer.close()

    async def _answer_to(self, line: bytes) -> object:
        try:
            asked = read_json(line)
            request = self._requests[asked["request"]]
        except (ValueError, TypeError, KeyError):
            known = ", ".join(self._requests)
            return {"ok": False, "text": f"{line[:80]!r} is no request; known: {known}"}
        return (await request(asked)).to_map()
