"""Live Griffin-Lim through a whole daemon: audio while the frames arrive, equal to offline rendering."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glowd.flow.mel import Floats
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.vocoder import render
from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.mels import SENTENCE, speech
from tests.harness.speaking import AudioReader, send_all, speak
from tests.harness.waiting import WAIT_S, until

MEL = speech()
ONLY_RTISI = 'voices={rtisi={engine="rtisi-la",max_streams=8}}'


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", ONLY_RTISI) as running:
        yield running


@cache
def offline(seed: int) -> Floats:
    return render(RtisiVocoder(), MEL, seed)


@pytest.mark.parametrize("size", [1, 5, 512])
def test_streamed_audio_equals_offline_rendering(daemon: Daemon, size: int) -> None:
    with daemon.client() as glow:
        audio, _ = speak(glow, MEL, [size], voice="rtisi", seed=5)
    np.testing.assert_allclose(audio, offline(5), atol=1e-6)


def test_realtime_streams_at_once_equal_offline_rendering(daemon: Daemon) -> None:
    audio: dict[int, Floats] = {}

    def run(seed: int) -> None:
        with daemon.client() as glow:
            audio[seed], _ = speak(glow, MEL, [4], realtime=True, voice="rtisi", seed=seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        np.testing.assert_allclose(audio[seed], offline(seed), atol=1e-6)


def test_first_audio_comes_before_the_sentence_ends(daemon: Daemon) -> None:
    vocoder = RtisiVocoder()
    with daemon.client() as glow, glow.open(voice="rtisi", sinks=["socket"], seed=1) as stream:
        stream.send(MEL[: vocoder.look_ahead_frames + 1])
        first = next(stream.audio(WAIT_S))
    np.testing.assert_allclose(first.payload, offline(1)[:256], atol=1e-6)


def test_welcome_tells_the_voices_latency(daemon: Daemon) -> None:
    with daemon.client() as glow:
        voice = next(voice for voice in glow.welcome.voices if voice["name"] == "rtisi")
    assert not voice["whole_utterance"] and voice["look_ahead_frames"] == 4
    assert voice["latency_ms"] == pytest.approx(4 * 256 / 22.05, abs=0.01)


def test_killed_engine_costs_no_sample(daemon: Daemon) -> None:
    """The gateway keeps the whole utterance for such a voice: the new engine renders it again from its first frame."""
    with (
        daemon.client() as glow,
        glow.open(voice="rtisi", sinks=["socket"], seed=8) as stream,
        AudioReader(stream) as reader,
    ):
        half = len(MEL) // 2
        send_all(stream, MEL[:half])
        assert reader.has_audio.wait(WAIT_S)
        os.kill(daemon.role_pids()["engine rtisi"], signal.SIGKILL)
        send_all(stream, MEL[half:])
        stream.end()
    np.testing.assert_allclose(reader.samples, offline(8), atol=1e-6)


def start_glowctl(daemon: Daemon, *words: str) -> "subprocess.Popen[str]":
    glowctl = [sys.executable, "-m", "glowd.clients.cli.glowctl"]
    command = [*glowctl, "--endpoint", daemon.endpoint, "--timeout", str(WAIT_S), *words]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_glowctl_send_writes_the_offline_audio(daemon: Daemon, tmp_path: Path) -> None:
    out = tmp_path / "spoken.wav"
    process = start_glowctl(daemon, "send", str(SENTENCE), "--voice", "rtisi", "--seed", "3", "--out", str(out))
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    audio, rate_hz = soundfile.read(out, dtype="float32")
    assert rate_hz == 22050
    np.testing.assert_allclose(audio, np.clip(offline(3), -1, 1), atol=1e-4)  # 16 bits


def test_ctrl_c_closes_the_stream_and_the_next_one_works(daemon: Daemon, tmp_path: Path) -> None:
    words = ("send", str(SENTENCE), "--voice", "rtisi", "--sink", "null", "--pace", "realtime", "--stream", "long")
    process = start_glowctl(daemon, *words)
    with daemon.client() as glow:
        until(lambda: "long" in glow.status().info["streams"], "the start of the stream")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode == 130 and errors == ""
        until(lambda: "long" not in glow.status().info["streams"], "the end of the stream")
    test_glowctl_send_writes_the_offline_audio(daemon, tmp_path)
