"""Speak frames through a stream of their own, as `glowctl send` and `glowctl say` do: utterances, warnings, `--out`.

Rules: prints to standard error only.
"""

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from glowd.clients import errors
from glowd.clients.cli.audio_output import Timeline, WavFile, claim_output
from glowd.clients.cli.chain import Chain
from glowd.clients.cli.mel_sources import at_speaking_pace, in_chunks, no_frames
from glowd.clients.cli.tables import clean
from glowd.clients.client import Client, Listener, Stream
from glowd.clients.upstream import numbered
from glowd.clients.voices import max_frames, not_ready, ready_format, voice_state
from glowd.daemon.wire.liveness import AwakeClock, Silence
from glowd.flow.mel import Floats, MelFormat
from glowd.flow.new_file import NewFile

VOICE_WAIT_S = 180.0
VOICE_POLL_S = 0.25
AWAY, AWAY_WAIT_S = "away", 6.0
"""A voice whose engine has crashed is away for at most 5 s before it loads again; one that is away for longer cannot load."""


def format_of(client: Client, voice: str, wait_s: float = VOICE_WAIT_S) -> MelFormat:
    """The mel format of a voice, "" for the default. Waits, and says so, while the daemon loads the voice.

    Raises Refused if the daemon has no such voice, has not loaded it within `wait_s`, or cannot.
    """
    waiting, away, said = Silence(clock := AwakeClock()), Silence(clock), ""
    while (found := ready_format(client.welcome, voice)) is None:
        name, state = voice_state(client.status(), voice)
        if state is None or not state.startswith(AWAY):
            away.end()
        if state is None or waiting.seconds > wait_s or away.seconds > AWAY_WAIT_S:
            raise not_ready(client.welcome, name, state)
        if state != said:
            print(f"glowctl: waiting for voice {clean(name)}, which is {clean(state)}", file=sys.stderr)
        said = state
        time.sleep(VOICE_POLL_S)
        client.refresh()
    return found


def speak(
    client: Client, args: argparse.Namespace, mel_format: MelFormat, source: Iterator[tuple[int, Floats]],
    stated: dict[str, Any],
) -> None:  # fmt: skip
    """Speak mels [n, M], each with the number of its sentence or recording, through a stream of their own.

    They become as many utterances as the daemon's limit asks for.
    """
    sinks = list(args.sink or ([] if args.out else ["device"]))
    if args.out and "socket" not in sinks:
        sinks.append("socket")
    first = next(source, (0, no_frames(mel_format)))  # a source that fails must not open a stream
    parts = numbered(itertools.chain([first], source), max_frames(client.welcome, mel_format))

    def open_stream(name: str, after: str, number: int) -> Stream:
        return client.open(
            name,
            voice=args.voice,
            sinks=sinks,
            seed=args.seed,
            gain_db=args.gain,
            format=stated,
            audio_rate_hz=args.rate,
            catch_up=args.catch_up,
            after=after,
            first_generation=number,
        )

    with claim_output(args) as claimed, Chain(args.stream, open_stream) as chain, Recorder(claimed) as recorder:
        for _, utterance in itertools.groupby(parts, key=lambda part: part[0]):
            stream = chain.next()
            chunks = in_chunks((part for _, part in utterance), args.chunk)
            with recorder.of(stream), printed_warnings(stream) as print_warnings:
                for chunk in at_speaking_pace(chunks, mel_format) if args.pace == "realtime" else chunks:
                    stream.send(chunk)
                    print_warnings()
                stream.end()
            chain.finish(but=1)


@contextlib.contextmanager
def printed_warnings(warned: Stream | Listener) -> Iterator[Callable[[], None]]:
    """A function that prints the new warnings of a stream or listener; those that are left are printed at the end."""
    printed = 0

    def print_new() -> None:
        nonlocal printed
        for warning in warned.warnings[printed:]:
            print(f"glowctl: warning: {clean(warning.text)}", file=sys.stderr)
            printed += 1

    try:
        yield print_new
    finally:
        print_new()


class Recorder:
    """Appends the audio of utterances to a WAV file; without a claimed one it does nothing.

    After an error or Ctrl-C the file has the audio that came before.
    """

    def __init__(self, claimed: NewFile | None) -> None:
        self._claimed, self._stack = claimed, contextlib.ExitStack()
        self._file: WavFile | None = None
        self._rate_hz = 0

    @contextlib.contextmanager
    def of(self, stream: Stream) -> Iterator[None]:
        """A block in which an utterance is sent and ended: at its end all of its audio is written."""
        try:
            yield
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(errors.GlowdError):
                self._write(stream, timeout_s=0)
            raise
        self._write(stream)

    def _write(self, stream: Stream, timeout_s: float | None = None) -> None:
        if self._claimed is None:
            return
        if self._file is None:
            self._file, self._rate_hz = WavFile(self._claimed, stream.audio_rate_hz), stream.audio_rate_hz
            self._stack.enter_context(self._file)
        timeline = Timeline(self._file.write)
        for chunk in stream.audio(timeout_s):
            timeline.add(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if self._claimed and self._file and self._file.kept:
            said = f"wrote {self._claimed.path}: {self._file.samples} samples at {self._rate_hz} Hz"
            print(said, file=sys.stderr)
