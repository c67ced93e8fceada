"""One voice in two engine processes: streams land in both, each speaks as if it were alone, and one engine may die."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.checkpoint import load
from glowd.flow.mel import Floats
from glowd.flow.streaming import ExactVocoder
from glowd.flow.vocoder import render
from tests.e2e.running import Daemon, running_daemon, samples_of, speech
from tests.patience import WAIT_S, repeated_after_stalls, until

MEL = speech()
HALF = len(MEL) // 2
TWO = "voices={glow={engine='waveglow',devices=['cpu','cpu'],max_streams=16}}"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", TWO) as running:
        yield running


class Speaking:
    """A stream of the sentence that has been heard, and waits before its second half."""

    def __init__(self, client: Client, seed: int) -> None:
        self.seed, self.pieces = seed, list[Floats]()
        self.stream = client.open(f"s{seed}", sinks=["socket"], seed=seed)
        self._heard = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        for at in range(0, HALF, 8):
            self.stream.send(MEL[at : min(HALF, at + 8)], WAIT_S)
        assert self._heard.wait(WAIT_S)

    def _read(self) -> None:
        for piece in self.stream.audio(WAIT_S):
            self.pieces.append(piece.payload)
            self._heard.set()

    def finish(self) -> None:
        """The second half; every sample is what the whole sentence gives offline."""
        self.stream.send(MEL[HALF:], WAIT_S)
        played = self.stream.wait_played(WAIT_S)
        self._reader.join(WAIT_S)
        assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * 256
        offline = render(ExactVocoder(load("embedded"), slots=1), MEL, self.seed)
        assert np.abs(samples_of(self.pieces) - offline).max() <= 1e-5


def placed(client: Client) -> dict[str, str]:
    return {name: stream["engine"] for name, stream in client.status().info["streams"].items()}


def connect(daemon: Daemon) -> Client:
    """A client of a daemon in which nobody speaks and both engines are there, whatever was before."""
    client = daemon.client()
    until(lambda: not placed(client), "the end of former streams")
    until(lambda: all(engine["ready"] for engine in engines(client).values()), "the start of both engines", 5 * WAIT_S)
    return client


def engines(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.status().info["voices"]["glow"]["engines"]
    return found


@repeated_after_stalls
def test_streams_land_in_both_engines_and_each_speaks_as_offline(daemon: Daemon) -> None:
    with connect(daemon) as glow:
        (voice,) = glow.welcome.voices
        assert voice["name"] == "glow" and voice["capacity"]["streams"] == 32
        assert {name: engine["device"] for name, engine in engines(glow).items()} == {"glow/0": "cpu", "glow/1": "cpu"}
        spoken = [Speaking(glow, seed) for seed in range(4)]
        assert Counter(placed(glow).values()) == {"glow/0": 2, "glow/1": 2}
        for one in spoken:
            one.finish()


@repeated_after_stalls
def test_an_engine_that_is_killed_costs_no_sample_of_its_own_streams_nor_of_the_others(daemon: Daemon) -> None:
    with connect(daemon) as glow:
        spoken = [Speaking(glow, seed) for seed in range(10, 14)]
        before = placed(glow)
        os.kill(daemon.role_pids()["engine glow/0"], signal.SIGKILL)
        for one in spoken:
            one.finish()
        after = placed(glow)
        assert Counter(before.values()) == {"glow/0": 2, "glow/1": 2}
        assert all(after[name] == engine for name, engine in before.items() if engine == "glow/1"), "they stayed"
    with connect(daemon) as glow:
        again = [Speaking(glow, seed) for seed in range(20, 22)]
        assert sorted(placed(glow).values()) == ["glow/0", "glow/1"]
        for one in again:
            one.finish()
