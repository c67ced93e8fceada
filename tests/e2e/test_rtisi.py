"""Live Griffin-Lim through a whole daemon: heard while the frames arrive, and what offline rendering gives."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glowd.daemon import wire
from glowd.flow.mel import Floats
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.vocoder import render
from tests.e2e.running import ROOT, SENTENCE, Daemon, running_daemon, samples_of, speech
from tests.patience import WAIT_S, until

MEL = speech()
ONLY_RTISI = 'voices={rtisi={engine="rtisi-la",max_streams=8}}'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", ONLY_RTISI) as running:
        yield running


@cache
def offline(seed: int) -> Floats:
    return render(RtisiVocoder(), MEL, seed)


def speak(daemon: Daemon, seed: int, chunk: int, pace_s: float = 0.0, kill_at: int = -1) -> Floats:
    """Speak the sentence in chunks, killing the engine at a frame if told to."""
    with daemon.client() as glow, glow.open(voice="rtisi", sinks=["socket"], seed=seed) as stream:
        pieces: list[Floats] = []
        reader = threading.Thread(target=lambda: pieces.extend(piece.payload for piece in stream.audio(WAIT_S)))
        reader.start()
        for at in range(0, len(MEL), chunk):
            stream.send(MEL[at : at + chunk], WAIT_S)
            if at <= kill_at < at + chunk:
                until(lambda: pieces, "the first audio")
                os.kill(daemon.role_pids()["engine rtisi"], signal.SIGKILL)
            time.sleep(pace_s)
        played = stream.wait_played(WAIT_S)
        reader.join()
        assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * 256
    return samples_of(pieces)


@pytest.mark.parametrize("chunk", [1, 5, 512])
def test_what_comes_out_is_what_offline_rendering_gives(daemon: Daemon, chunk: int) -> None:
    np.testing.assert_allclose(speak(daemon, 5, chunk), offline(5), atol=1e-6)


def test_several_streams_at_once_at_real_time_pace(daemon: Daemon) -> None:
    results: dict[int, Floats] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: speak(daemon, i, 4, 0.046)})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        np.testing.assert_allclose(results[seed], offline(seed), atol=1e-6)


def test_it_is_heard_before_the_sentence_ends(daemon: Daemon) -> None:
    vocoder = RtisiVocoder()
    with daemon.client() as glow, glow.open(voice="rtisi", sinks=["socket"], seed=1) as stream:
        stream.send(MEL[: vocoder.look_ahead_frames + 1])
        first = next(stream.audio(WAIT_S))
    np.testing.assert_allclose(first.payload, offline(1)[:256], atol=1e-6)


def test_a_voice_says_what_it_costs_to_wait_for(daemon: Daemon) -> None:
    with daemon.client() as glow:
        voice = next(voice for voice in glow.welcome.voices if voice["name"] == "rtisi")
    assert not voice["whole_utterance"] and voice["look_ahead_frames"] == 4
    assert voice["latency_ms"] == pytest.approx(4 * 256 / 22.05, abs=0.01)


def test_an_engine_that_is_killed_costs_no_sample(daemon: Daemon) -> None:
    """The gateway holds the whole utterance for such a voice: the new engine says it again from its first frame."""
    np.testing.assert_allclose(speak(daemon, 8, 8, kill_at=len(MEL) // 2), offline(8), atol=1e-6)


def glowctl(daemon: Daemon, *words: str) -> "subprocess.Popen[str]":
    glowctl = [sys.executable, "-m", "glowd.clients.cli.glowctl"]
    command = [*glowctl, "--endpoint", daemon.endpoint, "--timeout", str(WAIT_S), *words]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_glowctl_speaks_with_it(daemon: Daemon, tmp_path: Path) -> None:
    out = tmp_path / "spoken.wav"
    process = glowctl(daemon, "send", str(SENTENCE), "--voice", "rtisi", "--seed", "3", "--out", str(out))
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    audio, rate_hz = soundfile.read(out, dtype="float32")
    assert rate_hz == 22050
    np.testing.assert_allclose(audio, np.clip(offline(3), -1, 1), atol=1e-4)  # 16 bits


def test_ctrl_c_stops_it_in_the_middle_and_the_next_is_served(daemon: Daemon, tmp_path: Path) -> None:
    words = ("send", str(SENTENCE), "--voice", "rtisi", "--sink", "null", "--pace", "realtime", "--stream", "long")
    process = glowctl(daemon, *words)
    with daemon.client() as glow:
        until(lambda: "long" in glow.status().info["streams"], "the stream's beginning")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT_S)
        assert process.returncode == 130 and said == ""
        until(lambda: "long" not in glow.status().info["streams"], "the stream's end")
    test_glowctl_speaks_with_it(daemon, tmp_path)
