"""Debian's speech-dispatcher with the module of glowd, and `spd-say`, on a real daemon that plays to PulseAudio."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from glowd.clients.client import Client, Listener
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.pulse import PulseServer
from tests.harness.speech_dispatcher import SpeechDispatcher, Ssip, speech_dispatcher
from tests.harness.waiting import WAIT_S, until

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def daemon(pulse: PulseServer) -> Iterator[Daemon]:
    # A long buffer, as in test_device.py: a busy machine must not make the device stall.
    settings = ("speaker.device=pulse", "speaker.latency_ms=200", 'voices={glow={engine="waveglow",max_streams=4}}')
    with running_daemon(*settings, env=pulse.env) as running:
        yield running


@pytest.fixture(scope="module")
def dispatcher(daemon: Daemon) -> Iterator[SpeechDispatcher]:
    with (
        tempfile.TemporaryDirectory(prefix="spd-") as directory,
        speech_dispatcher(Path(directory), "--tts", "hibari", glowd=daemon.endpoint) as running,
    ):
        yield running


@dataclass
class Ear:
    """Listens to every stream of the daemon."""

    listener: Listener

    def utterance(self) -> tuple[Floats, wire.Played | wire.Flushed]:
        """The audio of the next utterance [T], and how it ended."""
        parts = [np.zeros(0, np.float32)]
        for event in self.listener.events(WAIT_S):
            if not isinstance(event, wire.Audio):
                return np.concatenate(parts), event
            parts.append(event.payload)
        raise AssertionError("events have no end")


@pytest.fixture
def ear(daemon: Daemon) -> Iterator[Ear]:
    with Client(daemon.endpoint, name="ear", timeout_s=WAIT_S) as client, client.listen() as listener:
        client.ping()
        yield Ear(listener)


def say(dispatcher: SpeechDispatcher, *words: str) -> None:
    said = dispatcher.spd_say("-o", "glowd", "-w", *words)
    log = (dispatcher.logs / "glowd.log").read_text()  # on a busy machine it may speak of a gap
    assert said.returncode == 0 and "cannot speak" not in log, said.stderr + log


def test_spd_say_is_heard_and_waits_for_the_end(dispatcher: SpeechDispatcher, ear: Ear, pulse: PulseServer) -> None:
    with pulse.record("glow") as recording:
        say(dispatcher, "Hello there.")
        heard = recording.after(0.5)
    audio, ending = ear.utterance()
    assert isinstance(ending, wire.Played) and 0.7 < len(audio) / RATE_HZ < 2.5
    assert np.abs(audio).max() > 0.05 and np.abs(heard).max() > 0.05


def test_same_text_sounds_the_same_each_time(dispatcher: SpeechDispatcher, ear: Ear) -> None:
    say(dispatcher, "The same words.")
    say(dispatcher, "The same words.")
    (first, _), (second, _) = ear.utterance(), ear.utterance()
    np.testing.assert_array_equal(first, second)


def test_rate_and_characters_and_keys_are_spoken(dispatcher: SpeechDispatcher, ear: Ear) -> None:
    lengths = []
    for words in (
        ("-r", "0", "This is a sentence of some length."),
        ("-r", "100", "This is a sentence of some length."),
    ):
        say(dispatcher, *words)
        lengths.append(len(ear.utterance()[0]))
    assert lengths[0] / lengths[1] == pytest.approx(3, rel=0.2)
    for marked in (("-c", "a"), ("-k", "control_a"), ("-x", "<speak>Marked <mark name='m'/>text.</speak>")):
        say(dispatcher, *marked)
        audio, ending = ear.utterance()
        assert isinstance(ending, wire.Played) and np.abs(audio).max() > 0.03, marked


def test_client_learns_which_mark_was_heard(dispatcher: SpeechDispatcher) -> None:
    text = '<speak>The first sentence. <mark name="here"/>And a second one. <mark name="there"/></speak>'
    with contextlib.closing(Ssip(dispatcher)) as client:
        for command in ("SET SELF SSML_MODE ON", "SET SELF NOTIFICATION ALL ON", "SPEAK", f"{text}\r\n."):
            client.ask(command)
        events = [client.event()]
        while not events[-1][-1].startswith("702"):
            events.append(client.event())
    assert [event[2] for event in events if event[-1].startswith("700")] == ["700-here", "700-there"]


def test_other_language_is_spoken_by_espeak(dispatcher: SpeechDispatcher, ear: Ear) -> None:
    say(dispatcher, "-l", "de", "Guten Tag.")
    assert np.abs(ear.utterance()[0]).max() > 0.03


def test_stop_silences_the_device(dispatcher: SpeechDispatcher, ear: Ear, pulse: PulseServer) -> None:
    text = "This is a long text that nobody wants to hear to its end. " * 10
    with pulse.record("glow") as recording:
        speaking = subprocess.Popen(["spd-say", "-o", "glowd", "-w", text], env=dict(dispatcher.env))
        until(lambda: np.abs(recording.samples()).max(initial=0) > 0.05, "sound")
        assert dispatcher.spd_say("-S").returncode == 0
        assert speaking.wait(WAIT_S) == 0
        recording.after(0.5)
        assert np.abs(recording.after(0.5)[-RATE_HZ // 2 :]).max() < 1e-3
    _, ending = ear.utterance()
    assert isinstance(ending, wire.Flushed) and ending.dropped_samples >= 0
