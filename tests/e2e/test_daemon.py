"""Frames in, speech out: the whole daemon with the embedded voice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.flow.checkpoint import load
from glowd.flow.mel import Floats
from glowd.flow.streaming import ExactVocoder
from glowd.flow.vocoder import render
from tests.e2e.running import Daemon, rss_bytes, running_daemon, samples_of, speech
from tests.patience import WAIT_S, until

MEL = speech()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # Not as many streams as this machine can do in time, which is not what is tested here.
    with running_daemon("speaker.enabled=false", "voices.glow.max_streams=16") as running:
        yield running


@cache
def offline(seed: int, frames: int = len(MEL)) -> Floats:
    return render(ExactVocoder(load("embedded"), slots=1), MEL[:frames], seed)


def speak(daemon: Daemon, seed: int, chunks: list[int], pace_s: float = 0.0, name: str = "") -> Floats:
    with daemon.client() as glow, glow.open(name, sinks=["socket"], seed=seed) as stream:
        reader = threading.Thread(target=lambda: pieces.extend(piece.payload for piece in stream.audio(WAIT_S)))
        pieces: list[Floats] = []
        reader.start()
        at, i = 0, 0
        while at < len(MEL):
            stream.send(MEL[at : at + chunks[i % len(chunks)]])
            at, i = at + chunks[i % len(chunks)], i + 1
            time.sleep(pace_s)
        played = stream.wait_played(WAIT_S)
        reader.join()
        assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * 256
    return samples_of(pieces)


@pytest.mark.parametrize("chunks", [[1], [4], [3, 17, 2], [512]])
def test_what_comes_out_is_the_offline_inversion_to_the_sample(daemon: Daemon, chunks: list[int]) -> None:
    audio = speak(daemon, seed=5, chunks=chunks)
    assert len(audio) == len(MEL) * 256
    assert np.abs(audio - offline(5)).max() <= 1e-5


def test_several_streams_at_once_at_real_time_pace(daemon: Daemon) -> None:
    results: dict[int, Floats] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: speak(daemon, i, [4], 0.046, f"s{i}")}))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert np.abs(results[i] - offline(i)).max() <= 1e-5


def test_an_engine_that_is_killed_costs_no_sample(daemon: Daemon) -> None:
    """The gateway still holds the frames of the receptive field: the new engine goes on exactly."""
    with daemon.client() as glow, glow.open(sinks=["socket"], seed=8) as stream:
        pieces: list[Floats] = []
        reader = threading.Thread(target=lambda: pieces.extend(piece.payload for piece in stream.audio(WAIT_S)))
        reader.start()
        half = len(MEL) // 2
        for at in range(0, half, 8):
            stream.send(MEL[at : min(half, at + 8)], WAIT_S)
        until(lambda: pieces, "the first audio")
        os.kill(daemon.role_pids()["engine glow"], signal.SIGKILL)
        stream.send(MEL[half:], WAIT_S)
        played = stream.wait_played(WAIT_S)
        reader.join()
        assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * 256
    assert np.abs(samples_of(pieces) - offline(8)).max() <= 1e-5


def test_griffin_lim_is_served_beside_it(daemon: Daemon) -> None:
    mel = MEL[:120]
    with daemon.client() as glow, glow.open(voice="griffin-lim", sinks=["socket"]) as stream:
        stream.send(mel)
        stream.end()
        audio = samples_of([piece.payload for piece in stream.audio(WAIT_S)])
    assert len(audio) == 120 * 256 and 0.01 < np.abs(audio).max() <= 1.5


def test_barge_in_and_the_next_sentence(daemon: Daemon) -> None:
    with daemon.client() as glow, glow.open(sinks=["socket"], seed=2) as stream:
        stream.send(MEL[:64])
        first = next(stream.audio(WAIT_S))
        flushed = stream.flush()
        assert flushed.TYPE == "flushed" and flushed.generation == 0 and first.first_sample == 0
        stream.send(MEL[:32])
        stream.end()
        audio = samples_of([piece.payload for piece in stream.audio(WAIT_S)])
    assert np.abs(audio - offline(2, 32)).max() <= 1e-5


def test_the_roles_stay_small(daemon: Daemon) -> None:
    pids = daemon.role_pids()
    assert rss_bytes(pids["gateway"]) <= 120e6


def test_it_stops_when_told_and_leaves_nothing(tmp_path: object) -> None:
    voices = 'voices={live={engine="rtisi-la",max_streams=2},late={engine="griffinlim"}}'  # both start quickly
    with running_daemon("speaker.enabled=false", voices) as running:
        assert running.role_pids().keys() == {"gateway", "engine live", "engine late"}
    assert running.process.returncode == 0
    assert not running.role_pids()
