"""Mels of other toolkits through a whole daemon, by glowctl: converted where it is said what they are, else warned of."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.flow.mel import log_mel
from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.waiting import WAIT_S

MEL = speech()[:200]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon("speaker.enabled=false", 'voices={rtisi={engine="rtisi-la",max_streams=8}}') as running:
        yield running


def glowctl(daemon: Daemon, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", daemon.endpoint, *words]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stdout + ran.stderr


def spoken(daemon: Daemon, folder: Path, mel: Any, *words: str) -> tuple[Any, str]:
    """The audio of a saved mel, and what was said beside it."""
    np.save(folder / "m.npy", mel)
    status, said = glowctl(daemon, "send", str(folder / "m.npy"), "--out", str(folder / "m.wav"), "--overwrite", *words)
    assert status == 0, said
    return soundfile.read(folder / "m.wav", dtype="float32")[0], said


def distance(one: Any, other: Any) -> float:
    """Mean difference of two sounds' mels, in natural logs: phases that are recovered differ with the last bit of a mel."""
    return float(abs(log_mel(one) - log_mel(other)).mean())


OTHERS = {
    "log10": MEL / np.log(10),
    "db": MEL * 20 / np.log(10),
    "matcha-lj": (MEL + 5.537) / 2.116,
    "coqui": MEL,
}


@pytest.mark.parametrize("name", OTHERS)
def test_stated_mel_sounds_as_the_voices_own(daemon: Daemon, tmp_path: Path, name: str) -> None:
    plain, said = spoken(daemon, tmp_path, MEL)
    assert "warning" not in said
    converted, said = spoken(daemon, tmp_path, OTHERS[name], "--format", name)
    assert "warning" not in said
    assert distance(converted, plain) < 0.2


def test_mel_of_another_scale_is_warned_of_once(daemon: Daemon, tmp_path: Path) -> None:
    _, said = spoken(daemon, tmp_path, OTHERS["log10"])
    assert said.count("warning") == 1 and "state format log10" in said


def test_strict_refuses_a_mel_of_another_scale(daemon: Daemon, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", OTHERS["log10"])
    status, said = glowctl(daemon, "send", str(tmp_path / "m.npy"), "--sink", "null", "--strict")
    assert status == 1 and "look like log10" in said


def test_padding_is_warned_of_unless_it_is_stated(daemon: Daemon, tmp_path: Path) -> None:
    padded = np.concatenate([MEL, np.zeros((60, 80), np.float32)])
    _, said = spoken(daemon, tmp_path, padded)
    assert "frame 200" in said and "padding = 0" in said
    audio, said = spoken(daemon, tmp_path, padded, "--format", "padding=0")
    assert "warning" not in said and len(audio) == 200 * 256


def test_statistics_file_undoes_a_z_score(daemon: Daemon, tmp_path: Path) -> None:
    mean, deviation = MEL.mean(axis=0), MEL.std(axis=0)
    np.savez(tmp_path / "s.npz", mean=mean, std=deviation)
    plain, _ = spoken(daemon, tmp_path, MEL)
    words = ("--format", "log=ln", "--statistics", str(tmp_path / "s.npz"))
    converted, said = spoken(daemon, tmp_path, (MEL - mean) / deviation, *words)
    assert "warning" not in said
    assert distance(converted, plain) < 0.2


def test_other_bands_are_refused_and_the_way_out_works(daemon: Daemon, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MEL)
    status, said = glowctl(daemon, "send", str(tmp_path / "m.npy"), "--sink", "null", "--format", "indextts2")
    assert status == 1 and "fmax_hz = 11025 (voice: 8000)" in said and "allow_approximate" in said
    _, said = spoken(daemon, tmp_path, MEL, "--format", "indextts2", "--allow-approximate")
    assert "warning: the frames are converted at a cost of" in said


def test_formats_are_listed_for_the_voice(daemon: Daemon) -> None:
    status, said = glowctl(daemon, "formats")
    assert status == 0 and "matcha" in said and "no: rate_hz = 24000" in said
