"""Frames in, speech out: the whole daemon with the embedded voice."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.flow.checkpoint import load
from glowd.flow.mel import Floats
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.vocoder import render
from tests.harness.daemon import Daemon, rss_bytes, running_daemon
from tests.harness.mels import speech
from tests.harness.speaking import HOP, AudioReader, send_all, speak
from tests.harness.waiting import WAIT_S

MEL = speech()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    # A fixed number of streams: how many this machine can do in time is not what is tested here.
    with running_daemon("speaker.enabled=false", "voices.glow.max_streams=16") as running:
        yield running


@cache
def offline(seed: int, frames: int = len(MEL)) -> Floats:
    return render(ExactVocoder(load("embedded"), VocoderOptions(slots=1)), MEL[:frames], seed)


@pytest.mark.parametrize("sizes", [[1], [4], [3, 17, 2], [512]])
def test_streamed_audio_equals_offline_rendering(daemon: Daemon, sizes: list[int]) -> None:
    with daemon.client() as glow:
        audio, _ = speak(glow, MEL, sizes, seed=5)
    assert np.abs(audio - offline(5)).max() <= 1e-5


def test_realtime_streams_at_once_equal_offline_rendering(daemon: Daemon) -> None:
    audio: dict[int, Floats] = {}

    def run(seed: int) -> None:
        with daemon.client() as glow:
            audio[seed], _ = speak(glow, MEL, [4], realtime=True, name=f"s{seed}", seed=seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        assert np.abs(audio[seed] - offline(seed)).max() <= 1e-5


def test_killed_engine_costs_no_sample(daemon: Daemon) -> None:
    """The gateway keeps the frames of the receptive field, so the new engine continues exactly."""
    with daemon.client() as glow, glow.open(sinks=["socket"], seed=8) as stream, AudioReader(stream) as reader:
        half = len(MEL) // 2
        send_all(stream, MEL[:half])
        assert reader.has_audio.wait(WAIT_S)
        os.kill(daemon.role_pids()["engine glow"], signal.SIGKILL)
        stream.send(MEL[half:], WAIT_S)
        played = stream.wait_played(WAIT_S)
    assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * HOP
    assert np.abs(reader.samples - offline(8)).max() <= 1e-5


def test_griffin_lim_voice_speaks_whole_utterances(daemon: Daemon) -> None:
    with daemon.client() as glow:
        audio, _ = speak(glow, MEL[:120], [120], voice="griffin-lim")
    assert 0.01 < np.abs(audio).max() <= 1.5


def test_barge_in_next_utterance_is_exact(daemon: Daemon) -> None:
    with daemon.client() as glow, glow.open(sinks=["socket"], seed=2) as stream:
        stream.send(MEL[:64])
        first = next(stream.audio(WAIT_S))
        flushed = stream.flush()
        assert flushed.TYPE == "flushed" and flushed.generation == 0 and first.first_sample == 0
        with AudioReader(stream) as reader:
            stream.send(MEL[:32])
            stream.end()
    assert np.abs(reader.samples - offline(2, 32)).max() <= 1e-5


def test_gateway_memory_stays_small(daemon: Daemon) -> None:
    assert rss_bytes(daemon.role_pids()["gateway"]) <= 120e6


def test_stopped_daemon_leaves_no_process() -> None:
    voices = 'voices={live={engine="rtisi-la",max_streams=2},late={engine="griffinlim"}}'  # both start quickly
    with running_daemon("speaker.enabled=false", voices) as running:
        assert running.role_pids().keys() == {"gateway", "engine live", "engine late"}
    assert running.process.returncode == 0
    assert not running.role_pids()
