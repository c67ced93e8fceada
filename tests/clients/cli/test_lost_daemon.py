"""glowctl while the daemon is lost and comes back: what was to be spoken is, and the user is told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from glowd.daemon import wire
from tests.fakes.daemon import HOP, FakeDaemon
from tests.harness.daemon import ROOT
from tests.harness.waiting import WAIT_S

FRAMES = 100


def sending(fake: FakeDaemon, directory: Path, *words: str) -> "subprocess.Popen[str]":
    """A `glowctl send` with audio back, of which the daemon has taken the frames that its credit allows."""
    np.save(directory / "m.npy", np.full((FRAMES, 80), -4, np.float32))
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", fake.endpoint, *words]
    process = subprocess.Popen(
        [*command, "send", str(directory / "m.npy"), "--out", str(directory / "o.wav")],
        cwd=ROOT, text=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    fake.wait_for(lambda: fake.streams and next(iter(fake.streams.values())).frames == 64)
    return process


@pytest.mark.process
def test_send_goes_on_and_says_so(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.auto = False
    process = sending(fake, tmp_path)
    fake.stop()
    with FakeDaemon(fake.directory) as second:
        _, said = process.communicate(timeout=WAIT_S)
        assert second.of_type(wire.Open)[0].samples == 64 * HOP
    samples, _ = soundfile.read(tmp_path / "o.wav", dtype="int16")
    np.testing.assert_array_equal(samples, np.round(np.arange(FRAMES * HOP) / 2**20 * 32767))
    assert process.returncode == 0
    assert "glowctl: the daemon at" in said and "waiting 30 s for it to come back" in said and "is back after" in said


@pytest.mark.process
def test_send_without_waiting_says_how_far_it_got(fake: FakeDaemon, tmp_path: Path) -> None:
    fake.auto = False
    process = sending(fake, tmp_path, "--reconnect", "0")
    fake.stop()
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "closed the connection; of utterance 0 of stream" in said and "had been delivered" in said
    samples, _ = soundfile.read(tmp_path / "o.wav", dtype="int16")
    assert len(samples) == 64 * HOP
