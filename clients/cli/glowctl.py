"""glowctl: speak through a running glowd, listen to it, and watch it.

Rules: no protocol here, only arguments, and words for people. What goes wrong is one line on standard error: exit status 2
for wrong arguments or files, 1 for everything else, 130 for Ctrl-C.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glowd.clients import errors
from glowd.clients.cli import tables, top
from glowd.clients.cli.audio_output import Timeline, Utterance, WavFile, output
from glowd.clients.cli.mel_sources import SourceError, at_speaking_pace, in_chunks, mel_of_file, speak
from glowd.clients.client import Client, Stream
from glowd.daemon import wire
from glowd.flow.mel import Floats, MelFormat

EPILOG = """examples:
  glowctl say "Hello there."
  glowctl send speech.flac --out copy.wav --pace fast
  glowctl listen --out heard.wav
  glowctl top
"""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glowctl", description=__doc__.splitlines()[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--endpoint", default="", help=f"where glowd listens ({wire.default_endpoint()})")
    parser.add_argument("--timeout", type=seconds, default=3.0, metavar="S", help="how long to wait for answers (3)")
    parser.add_argument("--verbose", action="store_true", help="log what the client does")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    send = commands.add_parser("send", help="speak a recording's mel, or a saved mel (.wav .flac .npy .pt)")
    send.add_argument("file", type=Path)
    say = commands.add_parser("say", help="speak a text by way of espeak-ng's mel")
    say.add_argument("text", help='the text; "-" reads standard input')
    say.add_argument("--espeak-voice", default="en-us", metavar="NAME", help="voice of espeak-ng (en-us)")
    for command in (send, say):
        stream_arguments(command)

    listen = commands.add_parser("listen", help="hear a stream of any client")
    listen.add_argument("stream", nargs="?", default="*", help="its name; without one: whichever speaks next")
    listen.add_argument("--out", default="", metavar="FILE", help='WAV file; "-": raw float32 on standard output')
    listen.add_argument("--once", action="store_true", help="stop after one utterance")

    status = commands.add_parser("status", help="the daemon's state, once")
    status.add_argument("--json", action="store_true")

    flush = commands.add_parser("flush", help="stop what a stream is saying")
    flush.add_argument("stream")
    flush.add_argument("--fade", type=count(0), default=15, metavar="MS", help="length of the fade-out in ms (15)")

    watch = commands.add_parser("top", help="watch all streams")
    watch.add_argument("--telemetry", default="", metavar="ENDPOINT", help="where the daemon publishes its figures")
    watch.add_argument("--batch", action="store_true", help="print tables one after the other")
    watch.add_argument("--json", action="store_true", help="print a line of JSON for each snapshot")
    watch.add_argument("-n", type=count(1), default=None, metavar="COUNT", help="stop after so many (batch, json)")
    return parser


def stream_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sink", action="append", metavar="SINK", help="device, socket, null or file:NAME; repeatable")
    parser.add_argument("--out", type=Path, default=None, metavar="OUT.wav", help="also write the audio here")
    parser.add_argument("--voice", default="", help="voice of the daemon (default: its default)")
    parser.add_argument("--seed", type=count(0), default=0)
    parser.add_argument("--gain", type=float, default=0.0, metavar="DB", help="volume on the device")
    parser.add_argument("--stream", default="", metavar="NAME", help="name of the stream (default: a new one)")
    parser.add_argument("--pace", choices=("realtime", "fast"), default="fast", help="of the frames (fast)")
    parser.add_argument("--chunk", type=count(1), default=16, metavar="FRAMES", help="frames in a message (16)")


def count(low: int) -> Any:
    """An argument type: an integer of at least `low`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {low}")
        return int(text)

    return parse


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, more than 0")
    return value


# ---- commands


def speak_file(client: Client, args: argparse.Namespace) -> None:
    mel_format = format_of(client, args.voice)
    say_frames(client, args, mel_format, iter([mel_of_file(args.file, mel_format)]))


def speak_text(client: Client, args: argparse.Namespace) -> None:
    mel_format = format_of(client, args.voice)
    text = sys.stdin.read() if args.text == "-" else args.text
    say_frames(client, args, mel_format, speak(text, args.espeak_voice, mel_format))


def format_of(client: Client, voice: str) -> MelFormat:
    """The mel format of a voice. Raises Refused if the daemon has no such voice."""
    voices = client.welcome.voices
    for known in voices:
        if known.get("name") == voice or (not voice and known.get("default")):
            return MelFormat.from_dict(known.get("format", {}))
    names = ", ".join(str(known.get("name")) for known in voices)
    raise errors.Refused(f"no voice {voice or 'is the default'} is ready; there is: {names or 'none'}")


def say_frames(client: Client, args: argparse.Namespace, mel_format: MelFormat, source: Iterator[Floats]) -> None:
    sinks = list(args.sink or ([] if args.out else ["device"]))
    if args.out and "socket" not in sinks:
        sinks.append("socket")
    chunks = in_chunks(source, args.chunk)
    if args.pace == "realtime":
        chunks = at_speaking_pace(chunks, mel_format)
    first = next(chunks, None)  # a source that fails does so before a stream is opened
    with client.open(
        args.stream, voice=args.voice, sinks=sinks, seed=args.seed, gain_db=args.gain, mel_format=mel_format.to_dict()
    ) as stream:
        if first is not None:
            stream.send(first)
        for chunk in chunks:
            stream.send(chunk)
        stream.end()
        if args.out:
            save(stream, args.out)


def save(stream: Stream, path: Path) -> None:
    with WavFile(path, stream.rate_hz) as file:
        timeline = Timeline(file.write)
        for piece in stream.audio():
            timeline.add(piece)
    print(f"wrote {path}: {file.samples} samples at {stream.rate_hz} Hz", file=sys.stderr)


def listen(client: Client, args: argparse.Namespace) -> None:
    with client.listen(args.stream) as listener:
        events = listener.events()
        first = next(event for event in events if isinstance(event, wire.Audio))
        with output(args.out, first.rate_hz) as out:
            utterance = Utterance(first, out.write)
            for event in events:
                if utterance.over and isinstance(event, wire.Audio):
                    utterance = Utterance(event, out.write)
                else:
                    utterance.add(event)
                if utterance.over and args.once:
                    return


def status(client: Client, args: argparse.Namespace) -> None:
    state = client.status()
    print(json.dumps(state.info) if args.json else tables.as_text(wire.Snapshot.from_map(state.info)))


def flush(client: Client, args: argparse.Namespace) -> None:
    streams = wire.Snapshot.from_map(client.status().info).streams
    if args.stream not in streams:
        names = ", ".join(streams) or "none"
        raise errors.StreamError(f"there is no stream {args.stream}; open now: {names}", wire.Code.UNKNOWN_STREAM)
    with client.listen(args.stream) as listener:
        ending = listener.flush(streams[args.stream].generation or 0, args.fade)
    match ending:
        case wire.Flushed():
            print(f"last sample played {ending.last_sample_played}, {ending.dropped_samples} dropped")
        case wire.Played():
            print(f"all {ending.total_samples} samples had been played")


def watch(args: argparse.Namespace) -> None:
    endpoint = args.telemetry or wire.default_telemetry()
    if args.batch or args.json or args.n or not sys.stdout.isatty():
        top.watch_batch(endpoint, args.n, args.json)
    else:
        top.watch_live(endpoint)


COMMANDS = {"send": speak_file, "say": speak_text, "listen": listen, "status": status, "flush": flush}


def run(args: argparse.Namespace) -> None:
    if args.command == "top":
        watch(args)
        return
    with Client(args.endpoint, name="glowctl", timeout_s=args.timeout) as client:
        COMMANDS[args.command](client, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.ERROR, format="glowctl: %(message)s")
    try:
        run(args)
    except (SourceError, wire.LocalError, ValueError) as error:
        return complain(str(error), 2)
    except (errors.GlowdError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return complain(str(error), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def complain(text: str, exit_status: int) -> int:
    print(f"glowctl: {tables.clean(text)}", file=sys.stderr)
    return exit_status


if __name__ == "__main__":
    sys.exit(main())
