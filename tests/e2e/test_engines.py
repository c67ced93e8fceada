"""One voice in two engine processes: streams use both, equal offline rendering, and survive the death of one engine."""

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.checkpoint import load
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.daemon import Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, AudioReader, send_all
from tests.harness.waiting import WAIT_S, repeated_after_stalls, until

MEL = speech()
HALF = len(MEL) // 2
TWO = "voices={glow={engine='waveglow',devices=['cpu','cpu'],max_streams=16}}"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", TWO) as running:
        yield running


class HalfSpoken:
    """A stream whose first half was sent and whose first audio has come back."""

    def __init__(self, client: Client, seed: int) -> None:
        self.seed = seed
        self._stack = contextlib.ExitStack()
        self.stream = client.open(f"s{seed}", sinks=["socket"], seed=seed)
        self._reader = self._stack.enter_context(AudioReader(self.stream))
        send_all(self.stream, MEL[:HALF])
        assert self._reader.has_audio.wait(WAIT_S)

    def finish(self) -> None:
        """Send the second half; every sample is that of the whole sentence rendered offline."""
        self.stream.send(MEL[HALF:], WAIT_S)
        played = self.stream.wait_played(WAIT_S)
        self._stack.close()
        assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * HOP
        offline = render(ExactVocoder(load("embedded"), VocoderOptions(slots=1)), MEL, self.seed)
        assert np.abs(self._reader.samples - offline).max() <= 1e-5


def placed(client: Client) -> dict[str, str]:
    return {name: stream["engine"] for name, stream in client.status().info["streams"].items()}


def connect(daemon: Daemon) -> Client:
    """A client of the daemon, connected once no stream is open and both engines are ready."""
    with daemon.client("waits") as glow:
        until(lambda: not placed(glow), "the end of earlier streams")
        until(lambda: all(engine["ready"] for engine in engines(glow).values()), "both engines' start", 5 * WAIT_S)
    return daemon.client()


def engines(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.status().info["voices"]["glow"]["engines"]
    return found


@repeated_after_stalls
def test_streams_in_two_engines_equal_offline_rendering(daemon: Daemon) -> None:
    with connect(daemon) as glow:
        (voice,) = glow.welcome.voices
        assert voice["name"] == "glow" and voice["capacity"]["streams"] == 32
        assert {name: engine["device"] for name, engine in engines(glow).items()} == {"glow/0": "cpu", "glow/1": "cpu"}
        spoken = [HalfSpoken(glow, seed) for seed in range(4)]
        assert Counter(placed(glow).values()) == {"glow/0": 2, "glow/1": 2}
        for one in spoken:
            one.finish()


@repeated_after_stalls
def test_killed_engine_costs_no_sample_of_any_stream(daemon: Daemon) -> None:
    with connect(daemon) as glow:
        spoken = [HalfSpoken(glow, seed) for seed in range(10, 14)]
        before = placed(glow)
        os.kill(daemon.role_pids()["engine glow/0"], signal.SIGKILL)
        for one in spoken:
            one.finish()
        after = placed(glow)
        assert Counter(before.values()) == {"glow/0": 2, "glow/1": 2}
        assert all(after[name] == engine for name, engine in before.items() if engine == "glow/1")
    with connect(daemon) as glow:
        again = [HalfSpoken(glow, seed) for seed in range(20, 22)]
        assert sorted(placed(glow).values()) == ["glow/0", "glow/1"]
        for one in again:
            one.finish()
