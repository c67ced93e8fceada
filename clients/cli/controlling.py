"""`glowctl flush`, `pause`, `resume` and `gain`: what is done to a stream of another client."""

import argparse
from typing import Any

from glowd.clients import errors
from glowd.clients.cli.argument_types import LOUDEST_DB, QUIETEST_DB, count, decibels
from glowd.clients.client import Client
from glowd.daemon import wire


def add_parsers(commands: Any) -> None:
    """Their command lines."""
    flush = commands.add_parser("flush", help="stop a stream's utterance")
    flush.add_argument("stream")
    flush.add_argument("--fade", type=count(0), default=15, metavar="MS", help="length of the fade-out in ms (15)")
    commands.add_parser("pause", help="hold a stream, silently").add_argument("stream")
    commands.add_parser("resume", help="continue a stream that is paused").add_argument("stream")
    gain = commands.add_parser("gain", help="set the volume of a stream on the device")
    gain.add_argument("stream")
    gain.add_argument("gain_db", type=decibels, metavar="DB", help=f"{QUIETEST_DB} to {LOUDEST_DB}; 0: as it came")


def flush(client: Client, args: argparse.Namespace) -> None:
    """`glowctl flush STREAM`. With a key that may only stop streams it is not told what was heard."""
    try:
        print(described(ending_of(client, args)))
    except errors.GlowdError as refusal:
        if refusal.code != wire.Code.NOT_ALLOWED:
            raise
        client.control(args.stream).flush(args.fade)
        print("stopped; what was heard is told to keys with the roles metrics and listen")


def ending_of(client: Client, args: argparse.Namespace) -> wire.Played | wire.Flushed:
    """Stop the utterance that runs, and listen for its ending."""
    streams = wire.Snapshot.from_map(client.status().info).streams
    if args.stream not in streams:
        names = ", ".join(streams) or "none"
        raise errors.StreamError(f"no stream {args.stream} is open; open streams: {names}", wire.Code.UNKNOWN_STREAM)
    with client.listen(args.stream) as listener:
        return listener.flush(streams[args.stream].generation or 0, args.fade)


def described(ending: wire.Played | wire.Flushed) -> str:
    """What was heard, for people."""
    if isinstance(ending, wire.Flushed):
        return f"last sample played {ending.last_sample_played}, {ending.dropped_samples} dropped"
    return f"all {ending.total_samples} samples had been played"


def control(client: Client, args: argparse.Namespace) -> None:
    """`glowctl pause`, `resume` and `gain`."""
    stream = client.control(args.stream)
    match args.command:
        case "pause":
            stream.pause()
        case "resume":
            stream.resume()
        case "gain":
            stream.gain(args.gain_db)


COMMANDS = {"flush": flush, **dict.fromkeys(("pause", "resume", "gain"), control)}
