"""The demonstration behind `make demo`: start a daemon, speak a recorded sentence through it, and show its figures. Then a
sentence that nobody has recorded, if hibari is installed.

    python -m glowd.clients.cli.demo [--config config.toml] [--out demo.wav]

Rules: an ordinary client, which also starts and stops `glowd` as a process of its own, in a private run directory. The
frames are sent at the pace of speech, as a synthesizer sends them. The number of samples that come back must be exact.
"""

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glowd.clients.cli import tables
from glowd.clients.cli.audio_output import Timeline, WavFile, claim
from glowd.clients.cli.mel_sources import SourceError, at_speaking_pace, in_chunks, mel_of_file
from glowd.clients.client import Client, Stream
from glowd.clients.errors import GlowdError
from glowd.clients.launch import launch
from glowd.clients.upstream import UpstreamError, open_upstream, speak_text
from glowd.clients.voices import not_ready, ready_format, voice_state
from glowd.daemon import wire
from glowd.daemon.wire import Array
from glowd.flow.mel import MelFormat

SENTENCE = Path(__file__).parents[1] / "demo_sentence.flac"
TEXT = "Nobody has recorded this sentence: it was made from its text, just now."
CHUNK_FRAMES = 8
SILENT_RMS = 1e-3
COMPARE = "To compare: start .venv/bin/glowd, then .venv/bin/glowctl say TEXT, and again with --voice rtisi"


@dataclass
class Received:
    """The audio that came back, and when."""

    parts: list[Array] = field(default_factory=list)
    first_ns: int | None = None
    last_ns: int | None = None

    def read(self, stream: Stream) -> None:
        """Read the stream's audio to its end."""
        timeline = Timeline(self.parts.append)
        for chunk in stream.audio():
            self.last_ns = time.monotonic_ns()
            self.first_ns = self.first_ns or self.last_ns
            timeline.add(chunk)


def speak(endpoint: str, out: Path) -> list[str]:
    """Speak the sentence and write its audio to `out`; the lines of the report."""
    with Client(endpoint, name="demo") as client:
        voice = next((voice for voice in client.welcome.voices if voice.get("default")), None)
        if voice is None:
            raise GlowdError("the daemon has no default voice that is ready; see `glowctl status`")
        mel_format = MelFormat.from_dict(voice["format"])
        mel = mel_of_file(SENTENCE, mel_format)
        sinks = sinks_of(client)
        with client.open(sinks=sinks, format=mel_format.to_dict()) as stream:
            received, began_ns = Received(), time.monotonic_ns()
            reader = threading.Thread(target=received.read, args=(stream,), daemon=True)
            reader.start()
            for chunk in at_speaking_pace(in_chunks(iter([mel]), CHUNK_FRAMES), mel_format):
                stream.send(chunk)
            sent_ns = time.monotonic_ns()
            stream.wait_played()
            reader.join()
            figures = wire.Snapshot.from_map(client.status().info).streams[stream.name]
            audio = check(received, len(mel) * stream.hop)
            with WavFile(claim(out, overwrite=True), stream.rate_hz) as file:
                file.write(audio)
            head = f"{len(mel)} frames -> {out}, {len(audio)} samples, {len(audio) / stream.rate_hz:.2f} s, "
            return [
                head + f"voice {stream.voice}, sinks {', '.join(sinks)}",
                *report(received, began_ns, sent_ns, figures),
            ]


def speak_text_of_its_own(endpoint: str) -> str:
    """Speak a text by hibari, on the device if there is one; a line for the report."""
    try:
        upstream = open_upstream("hibari")
    except UpstreamError as error:
        return f"To hear a text too: {error}"
    with Client(endpoint, name="demo") as client:
        wanted, sinks = ready_format(client.welcome, ""), sinks_of(client)
        if wanted is None:
            raise not_ready(client.welcome, *voice_state(client.status(), ""))
        began_ns, received = time.monotonic_ns(), Received()
        spoken = speak_text(upstream, [TEXT], wanted)
        with contextlib.closing(spoken.parts), client.open(sinks=sinks, format=spoken.stated) as stream:
            reader = threading.Thread(target=received.read, args=(stream,), daemon=True)
            reader.start()
            frames = 0
            for _, part in spoken.parts:
                stream.send(part)
                frames += len(part)
            stream.wait_played()
            reader.join()
            check(received, frames * stream.hop)
    assert received.first_ns, "there is audio"
    return f'"{TEXT}", by hibari: text -> first audio here {(received.first_ns - began_ns) / 1e6:.0f} ms'


def sinks_of(client: Client) -> list[str]:
    """The socket, and the sound device if there is one."""
    return ["socket", *(["device"] if "device" in client.welcome.sinks else [])]


def check(received: Received, samples: int) -> Array:
    """The audio. Raises GlowdError if it has another length, or is silence."""
    audio = np.concatenate(received.parts) if received.parts else np.zeros(0, np.float32)
    if len(audio) != samples:
        raise GlowdError(f"received {len(audio)} samples, expected {samples}")
    if (rms := float(np.sqrt(np.mean(audio**2)))) < SILENT_RMS:
        raise GlowdError(f"the received audio is silence (RMS {rms:.2g}, expected at least {SILENT_RMS:g})")
    return audio


def report(received: Received, began_ns: int, sent_ns: int, figures: wire.StreamSnapshot) -> list[str]:
    """The latency table."""

    def after(then_ns: int, now_ns: int | None) -> str:
        return tables.ABSENT if now_ns is None else f"{(now_ns - then_ns) / 1e6:.1f}"

    def row(name: str, *cells: str) -> str:
        return f"  {name:<44}" + "".join(f"{cell:>9}" for cell in cells)

    underruns = figures.underruns if "device" in figures.sinks else wire.Underruns()
    times = {stage: figures.stages.times.get(stage, wire.StageTimes()) for stage in wire.STAGES}
    return [
        row("first frames sent -> first audio here", after(began_ns, received.first_ns), "ms"),
        row("  of it in the daemon", tables.cell(figures.ttfa_ms, ".1f"), "ms"),
        row("last frames sent -> last audio here", after(sent_ns, received.last_ns), "ms"),
        row("real-time factor (network / audio time)", tables.cell(figures.rtf, ".3f")),
        row(
            "device underruns by client / by engine",
            tables.cell(underruns.client),
            tables.cell(underruns.engine),
        ),
        row("stage, ms", "p50", "p99"),
        *(
            row(f"  {stage}", tables.cell(took.p50_ms, ".2f"), tables.cell(took.p99_ms, ".2f"))
            for stage, took in times.items()
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m glowd.clients.cli.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config.toml"))
    parser.add_argument("--out", type=Path, default=Path("demo.wav"))
    args = parser.parse_args(argv)
    try:
        print("starting glowd ...", flush=True)
        with launch("run", "--config", str(args.config)) as daemon:
            print("speaking ...", flush=True)
            print("\n".join(speak(daemon.endpoint, args.out)), flush=True)
            print(speak_text_of_its_own(daemon.endpoint))
        print(COMPARE)
    except (GlowdError, SourceError, UpstreamError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
