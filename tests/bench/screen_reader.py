"""A screen reader's way: how much later than by the native client a text is heard, and how soon a stop is.

The same text in turns: by a client of this process, and through Debian's speech-dispatcher with our module, which plays on a
device and is timed by a client that listens. recorded_voice.py makes the mels, so no text-to-speech program is part of it.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from glowd.clients.client import Client, Listener
from glowd.clients.upstream import Upstream, open_upstream, speak_text
from glowd.clients.voices import ready_format
from glowd.daemon import wire
from tests.bench.recorded_voice import NAME
from tests.bench.report import Result, cpu_name, percentiles_ms, scheduling
from tests.harness.daemon import ONLY_GLOW, ROOT, Daemon, running_daemon
from tests.harness.speech_dispatcher import Ssip, speech_dispatcher
from tests.harness.waiting import WAIT_S

TEXT = "This text is spoken by a recording."
PREPARED = 3
"""Messages that do not count."""
SPEAKS = "speech-dispatcher"
"""The names of the module's streams begin with it."""
SPEAKER = ("speaker.latency_ms=15", "speaker.block_ms=5")
"""What clients/README.md advises for a screen reader: a stop is heard when the device has played what it holds."""


def screen_reader(env: dict[str, str], messages: int) -> Iterator[Result]:
    """The figures. `env`: where the sound device is."""
    path = {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    with (
        tempfile.TemporaryDirectory(prefix="spd-") as directory,
        running_daemon(ONLY_GLOW, *SPEAKER, "speaker.device=pulse", env=env) as daemon,
        speech_dispatcher(Path(directory), "--tts", NAME, glowd=daemon.endpoint, env=path) as dispatcher,
        contextlib.closing(Ssip(dispatcher)) as ssip,
    ):
        own_s, spoken_s, stopped_s = in_turns(daemon, ssip, messages)
    settings = {"messages": messages, "speaker": "15 ms, blocks of 5 ms", "scheduling": scheduling()}
    added, stop = percentiles_ms([spoken - own for own, spoken in zip(own_s, spoken_s)]), percentiles_ms(stopped_s)
    for name, spread, goal in (("added to the first audio", added, "<= 10"), ("stop to silence", stop, "<= 30")):
        yield Result(f"speech-dispatcher: {name}, p50", spread["p50"], "ms", cpu_name(), settings, goal, spread)


def in_turns(daemon: Daemon, ssip: Ssip, messages: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds to the first audio by the native client and by speech-dispatcher, and from a stop to its report."""
    upstream, own_s, spoken_s, stopped_s = open_upstream(NAME), list[float](), list[float](), list[float]()
    with daemon.client("bench") as client, daemon.client("ear") as ear, ear.listen() as listener:
        ear.ping()
        for _ in range(PREPARED + messages):
            own_s.append(native(client, upstream))
            spoken, stopped = dispatched(ssip, listener)
            spoken_s.append(spoken)
            stopped_s.append(stopped)
    return own_s[PREPARED:], spoken_s[PREPARED:], stopped_s[PREPARED:]


def native(client: Client, upstream: Upstream) -> float:
    """Seconds from a text to its first audio by the library."""
    wanted, took_s = ready_format(client.welcome, ""), list[float]()
    assert wanted, "the daemon is ready"
    began_s = time.monotonic()
    spoken = speak_text(upstream, [TEXT], wanted)
    with client.open(sinks=["socket"], format=spoken.stated) as stream:

        def read() -> None:
            took_s.extend(time.monotonic() - began_s for chunk in stream.audio(WAIT_S) if chunk.samples)

        reader = threading.Thread(target=read)
        reader.start()
        for _, frames in spoken.parts:
            stream.send(frames)
        stream.end()
        reader.join(WAIT_S)
    return took_s[0]


def dispatched(ssip: Ssip, listener: Listener) -> tuple[float, float]:
    """Seconds from a text to its first audio through speech-dispatcher, and from its stop to the report of silence."""
    ssip.ask("SPEAK")
    events = (event for event in listener.events(WAIT_S) if event.stream.startswith(SPEAKS))
    began_s = time.monotonic()
    ssip.ask(f"{TEXT}\r\n.")
    next(event for event in events if isinstance(event, wire.Audio) and event.samples)
    heard_s = time.monotonic()
    ssip.ask("CANCEL SELF")
    ending = next(event for event in events if not isinstance(event, wire.Audio))
    assert isinstance(ending, wire.Flushed), "the text is longer than that"
    return heard_s - began_s, time.monotonic() - heard_s
