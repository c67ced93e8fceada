"""The telemetry: a snapshot twice a second, for whoever watches.

Rules: the snapshot of hundreds of streams takes as long as many of their chunks, so it is taken some streams at a time, between
which the gateway reads messages. While nobody watches, nothing is taken.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import msgpack
import zmq

from glowd.daemon.gateway.clients.watchers import Watchers
from glowd.daemon.gateway.snapshot import SnapshotTaker

EVERY_NS = 500_000_000
LEAST_STREAMS, PASSES = 16, 16
"""Streams in one pass: so many at least, and as many as it takes for all of them in so many passes."""


class Publisher:
    """Owner of what goes to the socket of the telemetry. Belongs to the gateway's only thread."""

    def __init__(self, socket: zmq.Socket[bytes], watchers: Watchers, snapshots: SnapshotTaker) -> None:
        self._socket, self._watchers, self._snapshots = socket, watchers, snapshots
        self._begun_ns = 0
        self._parts: Generator[None, None, dict[str, Any]] | None = None

    def tick(self, now_ns: int) -> None:
        """Go on with a snapshot, or begin one if it is time. To be called in every tick of the loop."""
        somebody_watches = self._watchers.any()
        self._watchers.tick(now_ns)
        parts, self._parts = self._parts, None  # a mistake in a snapshot ends that snapshot
        if not somebody_watches:
            return
        if parts is None and now_ns - self._begun_ns >= EVERY_NS:
            parts, self._begun_ns = self._snapshots.map_by_streams(), now_ns
        if parts is None:
            return
        for _ in range(max(LEAST_STREAMS, -(-self._snapshots.streams // PASSES))):
            try:
                next(parts)
            except StopIteration as whole:
                self._send(whole.value)
                return
        self._parts = parts

    def _send(self, snapshot: dict[str, Any]) -> None:
        with contextlib.suppress(zmq.Again):
            self._socket.send(msgpack.packb(snapshot), zmq.NOBLOCK)
