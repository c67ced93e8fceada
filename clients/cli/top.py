"""`glowctl top`: the daemon's figures, continuously.

Rules: only subscribes to snapshots (PROTOCOL.md, Telemetry); it sends the daemon nothing. tables.py says how a snapshot
looks; this file puts it on the terminal. rich is imported when the live view needs it.
"""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgpack
import zmq

from glowd.clients import errors, transport
from glowd.clients.cli.tables import NARROW_COLUMNS, Table, as_text, headline, layout, notices, tables
from glowd.daemon.wire.address import Address
from glowd.daemon.wire.ip_version import no_address, wants_ipv6
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.daemon.wire.telemetry import Snapshot

if TYPE_CHECKING:
    from rich.text import Text

STALE_S, LONGEST_PASS_S = 3.0, 0.5
MAX_SNAPSHOT_BYTES = 4 << 20


def snapshots(endpoint: str, wait_s: float = STALE_S) -> Iterator[dict[str, Any] | None]:
    """Snapshots as published maps; None when none came for `wait_s`. Raises NotRunning if the first one does not come.

    Only the time counts in which this program ran: it may have been suspended at its terminal.
    """
    address = transport.address_to(endpoint)
    endpoint = address.shown
    context = zmq.Context()
    try:
        subscriber = context.socket(zmq.SUB)
        subscriber.setsockopt(zmq.RCVHWM, 4)
        subscriber.setsockopt(zmq.MAXMSGSIZE, MAX_SNAPSHOT_BYTES)
        subscriber.subscribe(b"")
        try:
            transport.connect(subscriber, address, wants_ipv6(address.url))
        except zmq.ZMQError as fault:
            raise errors.NotRunning(f"cannot connect to {endpoint}: {fault}") from None
        started, silence = False, Silence(AwakeClock(LONGEST_PASS_S))
        while True:
            if subscriber.poll(int(1000 * min(wait_s, LONGEST_PASS_S))):
                started = True
                silence.end()
                yield unpack(subscriber.recv())
            elif silence.seconds >= wait_s:
                if not started:
                    raise errors.not_running(endpoint, wait_s, no_address(address.url), advice(address))
                silence.end()
                yield None
    finally:
        context.destroy(linger=0)


def advice(address: Address) -> str:
    """What a user may do when no figures come from there."""
    if address.url.startswith("ipc://"):
        return "start one with: glowd"
    needs = ", and that the key has the role metrics (glowctl key list)" * bool(address.server_key)
    return f"see on that machine that glowd runs, that its server.telemetry is this address{needs}"


def unpack(data: bytes) -> dict[str, Any]:
    """A snapshot from its bytes. Raises ProtocolError for anything else."""
    try:
        snapshot = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as fault:
        raise errors.ProtocolError(f"the program at this address does not publish glowd's telemetry: {fault}") from None
    if not isinstance(snapshot, dict) or "streams" not in snapshot:
        raise errors.ProtocolError("the program at this address does not publish glowd's telemetry")
    return snapshot


def watch_batch(endpoint: str, count: int | None, as_json: bool) -> None:
    """Print `count` snapshots (None: without end), each as tables or as a line of JSON."""
    for number, snapshot in enumerate(snapshots(endpoint), start=1):
        if snapshot is None:
            raise errors.DaemonGone(f"the daemon at {endpoint} has stopped publishing figures")
        print(json.dumps(snapshot) if as_json else as_text(Snapshot.from_map(snapshot)) + "\n", flush=True)
        if number == count:
            return


def watch_live(endpoint: str) -> None:
    """Show the newest snapshot on the whole terminal, until q or Ctrl-C."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from glowd.clients.cli.keyboard import Keyboard

    source = snapshots(endpoint)
    snapshot, silent_s = Snapshot.from_map(next(source) or {}), 0.0
    with Keyboard(sys.stdin) as keyboard, Live(screen=True, auto_refresh=False) as live:
        while True:
            note = f"   no figures for {silent_s:.0f} s" if silent_s else ""
            head = Text(headline(snapshot) + note + "   (q: quit)", style="bold red" if note else "bold")
            warnings = [Text(line, style="yellow") for line in notices(snapshot)]
            shown = tables(snapshot, narrow=live.console.width < NARROW_COLUMNS)
            live.update(Group(head, *warnings, *map(styled, shown)), refresh=True)
            if keyboard.pressed() == "q":
                return
            newest = next(source)
            if newest is not None:
                snapshot, silent_s = Snapshot.from_map(newest), 0.0
            else:
                silent_s += STALE_S


def styled(table: Table) -> "Text":
    """A table for rich: the layout of plain text, with colours."""
    from rich.text import Text

    _, title, headings, *rows = layout(table)
    lines = [Text(title, style="dim"), Text(headings, style="cyan"), *map(Text, rows)]
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)
