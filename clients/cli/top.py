"""`glowctl top`: the daemon's figures, again and again.

Rules: reads snapshots (PROTOCOL.md, Telemetry) and never asks the daemon for anything while it watches. What a snapshot
looks like on a terminal is in tables.py.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import zmq

from glowd.clients import errors
from glowd.clients.cli.tables import NARROW_COLUMNS, as_rich, as_text, headline, notices, tables
from glowd.daemon.wire.telemetry import Snapshot

STALE_S = 3.0
MAX_SNAPSHOT_BYTES = 4 << 20


def snapshots(endpoint: str, patience_s: float = STALE_S) -> Iterator[dict[str, Any] | None]:
    """Snapshots as they are published; None when none came for `patience_s`. Raises NotRunning if the first is missing."""
    context = zmq.Context()
    try:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.RCVHWM, 4)
        subscriber.setsockopt(zmq.MAXMSGSIZE, MAX_SNAPSHOT_BYTES)
        subscriber.subscribe(b"")
        try:
            subscriber.connect(endpoint)
        except zmq.ZMQError as fault:
            raise errors.NotRunning(f"cannot connect to {endpoint}: {fault}") from None
        started = False
        while True:
            if subscriber.poll(int(patience_s * 1000)):
                started = True
                yield unpack(subscriber.recv())
            elif not started:
                raise errors.not_running(endpoint, patience_s)
            else:
                yield None
    finally:
        context.destroy(linger=0)


def unpack(data: bytes) -> dict[str, Any]:
    """One published map. Raises ProtocolError for anything else."""
    try:
        snapshot = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as fault:
        raise errors.ProtocolError(f"what is published there is not glowd's telemetry: {fault}") from None
    if not isinstance(snapshot, dict) or "streams" not in snapshot:
        raise errors.ProtocolError("what is published there is not glowd's telemetry")
    return snapshot


def watch_batch(endpoint: str, count: int | None, as_json: bool) -> None:
    """Print `count` snapshots (None: for ever), each as tables or as a line of JSON."""
    for number, snapshot in enumerate(snapshots(endpoint), start=1):
        if snapshot is None:
            raise errors.DaemonGone(f"the daemon at {endpoint} publishes no more figures")
        print(json.dumps(snapshot) if as_json else as_text(Snapshot.from_map(snapshot)) + "\n", flush=True)
        if number == count:
            return


def watch_live(endpoint: str) -> None:
    """Show the newest snapshot on the whole terminal, until q or Ctrl-C."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from glowd.clients.cli.keyboard import Keys

    source = snapshots(endpoint)
    snapshot, heard_s = Snapshot.from_map(next(source) or {}), time.monotonic()
    with Keys(sys.stdin) as keys, Live(screen=True, auto_refresh=False) as live:
        while True:
            silent_s = time.monotonic() - heard_s
            note = f"   no news for {silent_s:.0f} s" if silent_s > STALE_S else ""
            head = Text(headline(snapshot) + note + "   (q: quit)", style="bold red" if note else "bold")
            shown = tables(snapshot, narrow=live.console.width < NARROW_COLUMNS)
            warnings = [Text(line, style="yellow") for line in notices(snapshot)]
            live.update(Group(head, *warnings, *map(as_rich, shown)), refresh=True)
            if keys.pressed() == "q":
                return
            news = next(source)
            if news is not None:
                snapshot, heard_s = Snapshot.from_map(news), time.monotonic()
