"""`glowctl status`, `health` and `reload`: for who runs the daemon, and for programs that watch it.

Rules: output only; what is asked is the library's (client.py), or the supervisor's (admin.py).
"""

import argparse
import json
from typing import Any

from glowd.clients import admin, errors
from glowd.clients.cli import tables
from glowd.clients.client import Client
from glowd.daemon import wire


def add_parsers(commands: Any) -> None:
    """Their command lines."""
    parser = commands.add_parser("status", help="print the daemon's state and figures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands.add_parser(
        "health", help="status 0 unless the daemon does not answer, or makes no audio though frames wait"
    )
    commands.add_parser("reload", help="have the daemon of this user read its settings again")


def status(client: Client, args: argparse.Namespace) -> None:
    """`glowctl status`."""
    state = client.status()
    print(json.dumps(state.info) if args.json else tables.as_text(wire.Snapshot.from_map(state.info)))


def health(client: Client, args: argparse.Namespace) -> None:
    """`glowctl health`: for the health check of a container. A daemon that is loading, full or degraded is healthy."""
    found = wire.Snapshot.from_map(client.status().info)
    if found.stall:
        raise errors.DaemonError(found.stall)
    print(f"healthy: {found.state}; open streams: {len(found.streams)}")


def reload(args: argparse.Namespace) -> None:
    """`glowctl reload`."""
    told = admin.reload_settings(admin.run_dir_of(args.endpoint))
    if told.ok or told.settings or told.changed or told.added or told.removed:
        print("\n".join(told.lines()))
    if not told.ok:
        raise errors.Refused(told.text)
