"""The gateway, or the whole daemon, is killed in mid-utterance: every client hears what it would have heard without that."""

import contextlib
import os
import signal
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.clients import Client, errors
from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.harness.daemon import Daemon, kill, killable_daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, AudioReader, send_all
from tests.harness.waiting import WAIT_S, until

MEL = speech()
HALF = len(MEL) // 2
VOICES = 'voices={glow={engine="waveglow",max_streams=8,default=true},rtisi={engine="rtisi-la",max_streams=8}}'


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the daemon's file sinks."""
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def daemon(recordings: Path) -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", VOICES, f"files.directory={recordings}") as running:
        yield running


def opened(client: Client, **options: Any) -> Stream:
    """A stream, as soon as the engine has kept pace: on a busy machine it takes none for some seconds."""
    streams: list[Stream] = []

    def is_accepted() -> bool:
        with contextlib.suppress(errors.Refused):
            streams.append(client.open(**options))
        return bool(streams)

    until(is_accepted, "room for a stream", every_s=0.5)
    return streams[0]


def undisturbed(client: Client, **options: Any) -> Floats:
    """The audio of the sentence when nothing is lost."""
    with opened(client, sinks=["socket"], **options) as stream, AudioReader(stream) as reader:
        send_all(stream, MEL)
        stream.wait_played(WAIT_S)
    return reader.samples


def kill_gateway(daemon: Daemon) -> None:
    os.kill(daemon.role_pids()["gateway"], signal.SIGKILL)


def first_half(stream: Stream, reader: AudioReader) -> None:
    send_all(stream, MEL[:HALF])
    assert reader.has_audio.wait(WAIT_S)


@pytest.mark.parametrize(("voice", "seed"), [("glow", 8), ("rtisi", 0)])
def test_killed_gateway_costs_no_sample(daemon: Daemon, voice: str, seed: int) -> None:
    with daemon.client() as glow:
        expected = undisturbed(glow, voice=voice, seed=seed)
        with opened(glow, sinks=["socket"], voice=voice, seed=seed) as stream, AudioReader(stream) as reader:
            first_half(stream, reader)
            kill_gateway(daemon)
            send_all(stream, MEL[HALF:])
            played = stream.wait_played(WAIT_S)
    assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * HOP
    np.testing.assert_array_equal(reader.samples, expected)


def test_killed_gateway_while_speaking_live_costs_no_sample(daemon: Daemon) -> None:
    with daemon.client() as glow:
        expected = undisturbed(glow, seed=3)
        with opened(glow, sinks=["socket"], seed=3) as stream, AudioReader(stream) as reader:
            send_all(stream, MEL[:HALF], realtime=True)
            kill_gateway(daemon)
            send_all(stream, MEL[HALF:], realtime=True)
            stream.wait_played(WAIT_S)
    np.testing.assert_array_equal(reader.samples, expected)


def test_resampled_audio_goes_on_within_its_rounding(daemon: Daemon) -> None:
    with daemon.client() as glow:
        expected = undisturbed(glow, seed=4, audio_rate_hz=16_000)
        with opened(glow, sinks=["socket"], seed=4, audio_rate_hz=16_000) as stream, AudioReader(stream) as reader:
            first_half(stream, reader)
            kill_gateway(daemon)
            send_all(stream, MEL[HALF:])
            stream.wait_played(WAIT_S)
    assert len(reader.samples) == len(expected)
    assert np.abs(reader.samples - expected).max() <= 1e-5


def test_recording_is_complete_after_the_gateway_was_killed(daemon: Daemon, recordings: Path) -> None:
    with daemon.client() as glow:
        for name, disturbed in (("calm", False), ("killed", True)):
            with opened(glow, sinks=[f"file:{name}"], seed=6) as stream:
                send_all(stream, MEL[:HALF])
                if disturbed:
                    kill_gateway(daemon)
                send_all(stream, MEL[HALF:])
                stream.wait_played(WAIT_S)
    calm, killed = (samples_of(recordings / f"{name}.wav") for name in ("calm", "killed"))
    assert len(calm) == len(MEL) * HOP and not list(recordings.glob("*.part"))
    np.testing.assert_array_equal(killed, calm)


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_client_that_does_not_wait_learns_how_far_it_got(daemon: Daemon) -> None:
    with Client(daemon.endpoint, timeout_s=WAIT_S, reconnect_s=0) as glow:
        stream = opened(glow, sinks=["null"])
        stream.send(MEL[:HALF], WAIT_S)
        kill_gateway(daemon)
        with pytest.raises(errors.DaemonGone, match=rf"of {HALF} frames .* had been delivered") as caught:
            stream.wait_played(WAIT_S)
        assert caught.value.heard_samples is not None and caught.value.heard_samples % HOP == 0
    with daemon.client() as glow:
        until(lambda: glow.refresh().voices, "the engines")


def test_killed_daemon_that_is_started_again_costs_no_sample() -> None:
    """All processes die at once; the run directory stays, and somebody starts glowd there again."""
    with tempfile.TemporaryDirectory(prefix="glowd-") as name, contextlib.ExitStack() as stack:
        first = stack.enter_context(killable_daemon(Path(name), "speaker.enabled=false", VOICES))
        glow = stack.enter_context(Client(first.endpoint, timeout_s=WAIT_S, reconnect_s=5 * WAIT_S))
        expected = undisturbed(glow, seed=7)
        stream = opened(glow, sinks=["socket"], seed=7)
        with AudioReader(stream) as reader:
            first_half(stream, reader)
            kill(first)
            stack.enter_context(killable_daemon(Path(name), "speaker.enabled=false", VOICES))
            stream.send(MEL[HALF:], 5 * WAIT_S)
            stream.wait_played(WAIT_S)
        stream.close()
    np.testing.assert_array_equal(reader.samples, expected)
