"""glowctl: speak through a running glowd, listen to its streams, and watch it.

Rules: arguments and output only; the protocol is the library's. An error is one line on standard error: exit status 2 for
wrong arguments or files, 1 for everything else, 130 for Ctrl-C.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glowd.clients import errors
from glowd.clients.cli import controlling, keys, operating, tables, top
from glowd.clients.cli.argument_types import count, decibels, rate, seconds, speed
from glowd.clients.cli.audio_output import UtteranceWriter, claim_output, open_output
from glowd.clients.cli.formats import format_lines, stated_format, without_padding
from glowd.clients.cli.mel_sources import AUDIO_SUFFIXES, SourceError, arriving_text, mel_of_file
from glowd.clients.cli.speaking import format_of, printed_warnings, speak
from glowd.clients.client import Client
from glowd.clients.connection import RECONNECT_S, loss_log
from glowd.clients.speechd import install as speechd
from glowd.clients.transport import check_owner
from glowd.clients.upstream import Manner, UpstreamError, open_upstream, pieces_of_text, speak_text
from glowd.clients.upstream.choose import NAMES as UPSTREAMS
from glowd.clients.upstream.choose import VARIABLE as TTS_VARIABLE
from glowd.daemon import wire
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.statement import read_statement, statement_map, voice_mels
from glowd.flow.mel_formats.statistics import read_statistics

EPILOG = """examples:
  glowctl say "Hello there."
  glowctl send speech.flac --out copy.wav --pace fast
  glowctl listen --out heard.wav
  glowctl top
"""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="glowctl", description="Speak through a running glowd, listen to its streams, and watch it.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--endpoint", default="",
        help="address of the daemon, or several with commas between them ($GLOWD_ENDPOINT, or the socket in the run directory)",
    )  # fmt: skip
    parser.add_argument("--timeout", type=seconds, default=3.0, metavar="S", help="how long to wait for answers (3)")
    parser.add_argument(
        "--reconnect", type=count(0), default=int(RECONNECT_S), metavar="S",
        help=f"how long to wait for a daemon that is lost to come back, and then go on ({RECONNECT_S:g})",
    )  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="log every message about retries and rejections")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    send = commands.add_parser("send", help="speak the mel of a recording, or a saved mel (.wav .flac .npy .npz .pt)")
    send.add_argument("file", type=Path)
    format_arguments(send)
    say = commands.add_parser("say", help="speak a text; its mel comes from hibari, espeak-ng or a model of yours")
    say.add_argument("text", help='the text; "-" reads standard input, and speaks while it comes')
    text_arguments(say)
    for command in (send, say):
        stream_arguments(command)

    known = commands.add_parser(
        "formats", help="list the mel formats of other toolkits, and what a voice can do with them"
    )
    known.add_argument("--voice", default="", help="a voice of the daemon (default: the daemon's default)")

    listen = commands.add_parser("listen", help="play or record the audio of a stream of any client")
    listen.add_argument("stream", nargs="?", default="*", help="name of the stream (default: the next one that speaks)")
    listen.add_argument("--out", default="", metavar="FILE", help='WAV file; "-": raw float32 on standard output')
    overwrite_argument(listen)
    listen.add_argument("--rate", type=rate, default=0, metavar="HZ", help="of what is written (the voices' highest)")
    listen.add_argument("--once", action="store_true", help="stop after one utterance")

    module = commands.add_parser("speechd", help="install the module of speech-dispatcher, for Orca; needs no daemon")
    module.add_argument("--print", action="store_true", help="print the two files instead of writing them")
    text_source_arguments(module)
    module.add_argument("--voice", default="", help="a voice of the daemon (default: the daemon's default)")

    controlling.add_parsers(commands)
    operating.add_parsers(commands)
    keys.add_parser(commands)

    watch = commands.add_parser("top", help="show all streams and figures continuously")
    watch.add_argument("--telemetry", default="", metavar="ENDPOINT", help="address of the daemon's figures")
    watch.add_argument("--batch", action="store_true", help="print tables instead of filling the screen")
    watch.add_argument("--json", action="store_true", help="print one line of JSON for each snapshot")
    watch.add_argument("-n", type=count(1), default=None, metavar="COUNT", help="stop after COUNT snapshots")
    return parser


def stream_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that open a stream."""
    parser.add_argument("--sink", action="append", metavar="SINK", help="device, socket, null or file:NAME; repeatable")
    parser.add_argument("--out", type=Path, default=None, metavar="OUT.wav", help="also write the audio to this file")
    overwrite_argument(parser)
    parser.add_argument("--voice", default="", help="a voice of the daemon (default: the daemon's default)")
    parser.add_argument("--seed", type=count(0), default=0, help="of the noise: equal seeds give equal audio (0)")
    parser.add_argument("--gain", type=decibels, default=0.0, metavar="DB", help="volume on the device, -120 to 24 (0)")
    parser.add_argument("--stream", default="", metavar="NAME", help="name of the stream (default: a new one)")
    parser.add_argument("--rate", type=rate, default=0, metavar="HZ", help="of the file of --out (the voice's own)")
    parser.add_argument(
        "--catch-up", choices=("auto", "live", "never"), default="auto",
        help="after a gap on the device, speak faster until the delay is gone: if sent at speaking pace (auto), or not",
    )  # fmt: skip
    parser.add_argument("--pace", choices=("realtime", "fast"), default="fast", help="of sending (fast)")
    parser.add_argument("--chunk", type=count(1), default=16, metavar="FRAMES", help="frames in a message (16)")


def text_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say who speaks a text, and how."""
    text_source_arguments(parser)
    parser.add_argument(
        "--espeak-voice", default="", metavar="NAME", help="the same as --tts espeak-ng --tts-voice NAME"
    )
    parser.add_argument("--speed", type=speed, default=1.0, metavar="FACTOR", help="of speaking, 0.3 to 3 (1)")


def text_source_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say who speaks a text."""
    parser.add_argument(
        "--tts", default="", metavar="NAME",
        help=f"{', '.join(UPSTREAMS)} (default: ${TTS_VARIABLE}, else hibari if it is installed, else espeak-ng)",
    )  # fmt: skip
    parser.add_argument(
        "--tts-voice", default="", metavar="NAME", help="a voice of hibari or espeak-ng, a speaker of matcha"
    )


def overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """Whether --out may be a file that exists."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the file of --out, even if it is no recording"
    )


def format_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what a saved mel is."""
    parser.add_argument(
        "--format", type=stated_format, default={}, metavar="NAME[,KEY=VALUE]",
        help="what a saved mel is, if it is not the voice's own: a name of `glowctl formats`, keys of PROTOCOL.md, or both",
    )  # fmt: skip
    parser.add_argument(
        "--statistics", type=Path, metavar="FILE", help="mean and standard deviation of z-scores (.npz .npy .json .h5)"
    )
    parser.add_argument("--allow-approximate", action="store_true", help="convert other bands too; the cost is said")
    parser.add_argument("--strict", action="store_true", help="refuse a mel that cannot be what it is said to be")


# ---- commands


def send(client: Client, args: argparse.Namespace) -> None:
    """`glowctl send FILE`."""
    own = format_of(client, args.voice)
    stated = stated_map(args)
    if args.file.suffix.lower() in AUDIO_SUFFIXES and (args.format or args.statistics):
        raise SourceError(
            f"{args.file} is a recording: its mel is made here, in the voice's format; leave --format out"
        )
    mels = read_statement(stated, voice_mels(own.to_dict())).mels
    mel = without_padding(mel_of_file(args.file, own, mels.n_mels), mels.padding)
    speak(client, args, own, iter([(0, mel)]), stated)


def say(client: Client, args: argparse.Namespace) -> None:
    """`glowctl say TEXT`."""
    mel_format = format_of(client, args.voice)
    upstream = open_upstream(
        args.tts or ("espeak-ng" if args.espeak_voice else ""), args.tts_voice or args.espeak_voice
    )
    text = arriving_text(sys.stdin.buffer) if args.text == "-" else args.text
    spoken = speak_text(upstream, pieces_of_text(text), mel_format, Manner(args.speed))
    with contextlib.closing(spoken.parts):
        speak(client, args, mel_format, spoken.parts, spoken.stated)


def stated_map(args: argparse.Namespace) -> dict[str, Any]:
    """The map of `open.format` that the arguments of `send` say."""
    stated: dict[str, Any] = args.format | (read_statistics(args.statistics) if args.statistics else {})
    return statement_map(stated, strict=args.strict, allow_approximate=args.allow_approximate)


def formats(client: Client | None, args: argparse.Namespace) -> None:
    """`glowctl formats`: for a voice of the daemon, or, where none runs, for glowd's own format."""
    voice = voice_mels(format_of(client, args.voice).to_dict()) if client else MelDescription()
    print("\n".join(format_lines(voice)))


def listen(client: Client, args: argparse.Namespace) -> None:
    """`glowctl listen`: one utterance after the other, never two mixed."""
    rate_hz = args.rate or highest_rate_hz(client)  # voices may differ, a file has one rate
    with (
        claim_output(args) as claimed,
        client.listen(args.stream, audio_rate_hz=rate_hz) as listener,
        printed_warnings(listener) as print_warnings,
    ):
        events = listener.events()
        first = next(event for event in events if isinstance(event, wire.Audio))
        with open_output(claimed, args.out, first.rate_hz) as output:
            utterance = UtteranceWriter(first, output.write)
            for event in events:
                print_warnings()
                if utterance.ended and isinstance(event, wire.Audio):
                    utterance = UtteranceWriter(event, output.write)
                else:
                    utterance.add(event)
                if utterance.ended and args.once:
                    return


def highest_rate_hz(client: Client) -> int:
    """The highest sample rate of the daemon's voices; 0 if there are none."""
    rates_hz = [voice.get("rate_hz", 0) for voice in client.welcome.voices]
    return max(rates_hz, default=0)


def install_module(args: argparse.Namespace) -> None:
    """`glowctl speechd`: the module of speech-dispatcher, for this user."""
    found = speechd.places(os.environ)
    settings = {"tts": args.tts, "tts_voice": args.tts_voice, "voice": args.voice, "endpoint": args.endpoint}
    if args.print:
        texts = {found.program: speechd.program_text(), found.config: speechd.config_text(settings)}
        print("\n".join(f"# {path}\n{text}" for path, text in texts.items()), end="")
        return
    open_upstream(args.tts, args.tts_voice)  # what is missing is said here, where it is read
    speechd.install(found, settings)
    print(f"wrote {found.program} and {found.config}\n{speechd.NEXT_STEPS}")


def watch(args: argparse.Namespace) -> None:
    """`glowctl top`."""
    endpoint = args.telemetry or wire.default_telemetry()
    named = args.endpoint or os.environ.get("GLOWD_ENDPOINT", "")
    if endpoint.startswith("ipc://") and named and not named.startswith("ipc://"):
        raise errors.NotRunning(
            "top reads the figures of a daemon on another machine at its server.telemetry: name that address, "
            "--telemetry glowd://NAME:SECRET@HOST:PORT#SERVERKEY, with the key of the endpoint and the port of the telemetry; "
            "or see them once: glowctl status"
        )
    if not (args.telemetry or os.environ.get("GLOWD_TELEMETRY")):
        check_owner(endpoint)
    if args.batch or args.json or args.n or not sys.stdout.isatty():
        top.watch_batch(endpoint, args.n, args.json)
    else:
        top.watch_live(endpoint)


COMMANDS = {
    "send": send,
    "say": say,
    "formats": formats,
    "listen": listen,
    "status": operating.status,
    "health": operating.health,
    **controlling.COMMANDS,
    **dict.fromkeys(operating.PLACING, operating.place),
}


def connected(args: argparse.Namespace) -> Client:
    """A client of the daemon."""
    return Client(args.endpoint, name="glowctl", timeout_s=args.timeout, reconnect_s=args.reconnect)


def run(args: argparse.Namespace) -> None:
    """Run the command that was parsed."""
    if args.command == "top":
        watch(args)
        return
    if args.command == "reload":
        operating.reload(args)
        return
    if args.command == "key":
        keys.run(args)
        return
    if args.command == "speechd":
        install_module(args)
        return
    if args.command == "formats" and not args.voice:
        with (
            contextlib.suppress(errors.NotRunning),
            connected(args) as client,
        ):
            formats(client, args)
            return
        print("no daemon runs; for glowd's own format:", file=sys.stderr)
        formats(None, args)
        return
    with connected(args) as client:
        COMMANDS[args.command](client, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.ERROR, format="glowctl: %(message)s")
    loss_log.setLevel(logging.WARNING)
    try:
        run(args)
    except (SourceError, UpstreamError, wire.LocalError, ValueError) as error:
        return report(str(error), 2)
    except (errors.GlowdError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of standard output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return report(str(error), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def report(text: str, exit_status: int) -> int:
    """Print an error; its exit status."""
    print(f"glowctl: {tables.clean(text)}", file=sys.stderr)
    return exit_status


if __name__ == "__main__":
    sys.exit(main())
