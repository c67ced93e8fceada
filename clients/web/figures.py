"""The daemon's newest figures, for every page and for whoever asks by HTTP.

Rules: subscribes to telemetry as `glowctl top` does (PROTOCOL.md, Telemetry), keeps the newest snapshot and no other. A daemon
that is away is waited for: the socket connects again by itself.
"""

import asyncio
import logging
from typing import Any

import zmq
import zmq.asyncio

from glowd.clients import errors
from glowd.clients.cli.top import MAX_SNAPSHOT_BYTES, STALE_S, unpack
from glowd.daemon.wire.liveness import AwakeClock, Silence

PASS_MS = 500

log = logging.getLogger("glowd")


class Figures:
    """Owner: the event loop that runs `follow`. `newest` is the last snapshot, None before the first."""

    def __init__(self, telemetry: str) -> None:
        self.newest: dict[str, Any] | None = None
        self.count = 0
        """Snapshots so far; waiters name the one that they have seen."""
        self.fresh = False
        """Whether the daemon has published figures within the last seconds."""
        self._telemetry, self._silence = telemetry, Silence(AwakeClock())
        self._arrived = asyncio.Condition()

    async def next(self, seen: int) -> tuple[int, dict[str, Any]]:
        """The newest snapshot and its number; waits for one after number `seen`."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.newest is not None and self.count > seen)
        assert self.newest is not None, "it was counted"
        return self.count, self.newest

    async def follow(self) -> None:
        """Receive snapshots, without end."""
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.setsockopt(zmq.RCVHWM, 4)
            subscriber.setsockopt(zmq.LINGER, 0)
            subscriber.setsockopt(zmq.MAXMSGSIZE, MAX_SNAPSHOT_BYTES)
            subscriber.subscribe(b"")
            subscriber.connect(self._telemetry)
            while True:
                if await subscriber.poll(PASS_MS):
                    await self._take(await subscriber.recv())
                self.fresh = self.newest is not None and self._silence.seconds <= STALE_S

    async def _take(self, data: bytes) -> None:
        try:
            snapshot = unpack(data)
        except errors.ProtocolError as fault:
            log.warning("skipped telemetry: %s", fault)
            return
        async with self._arrived:
            self.newest = snapshot
            self._silence.end()
            self.count += 1
            self._arrived.notify_all()
