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

PLACING = {
    "cordon": "give an engine, or the daemon, no new streams",
    "drain": "the same, and have its streams go elsewhere when their utterance ends; an engine that has joined ends then",
    "uncordon": "give an engine, or the daemon, streams again",
}


def add_parsers(commands: Any) -> None:
    """Their command lines."""
    parser = commands.add_parser("status", help="print the daemon's state and figures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands.add_parser(
        "health", help="status 0 unless the daemon does not answer, or makes no audio though frames wait"
    )
    for action, what in PLACING.items():
        placing = commands.add_parser(action, help=what)
        placing.add_argument(
            "engine", nargs="?", default=wire.WHOLE_DAEMON,
            help="its name in `glowctl status`, such as glow/0; without one: the whole daemon, before it is stopped",
        )  # fmt: skip
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


def place(client: Client, args: argparse.Namespace) -> None:
    """`glowctl cordon`, `drain` and `uncordon`."""
    act = {"cordon": client.cordon, "drain": client.drain, "uncordon": client.uncordon}[args.command]
    found = wire.Snapshot.from_map(act(args.engine).info)
    if args.engine == wire.WHOLE_DAEMON:
        print(f"the daemon is {found.state}; open streams: {len(found.streams)}")
        return
    engine = next(voice.engines[args.engine] for voice in found.voices.values() if args.engine in voice.engines)
    print(f"{args.engine} is {engine.placement}; open streams: {engine.open}")


def reload(args: argparse.Namespace) -> None:
    """`glowctl reload`."""
    told = admin.reload_settings(admin.run_dir_of(args.endpoint))
    if told.ok or told.settings or told.changed or told.added or told.removed:
        print("\n".join(told.lines()))
    if not told.ok:
        raise errors.Refused(told.text)
