"""A text or recording that becomes several utterances is heard, and written, as if it were one."""

import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.flow.mel import Floats
from tests.harness.daemon import ROOT, Daemon, killable_daemon
from tests.harness.pulse import PulseServer
from tests.harness.speaking import HOP
from tests.harness.waiting import WAIT_S, repeated_after_stalls

SENTENCE = ROOT / "clients" / "demo_sentence.flac"
FRAMES, MOST_S, UTTERANCES = 574, 2, 4
SETTINGS = (
    "speaker.device=pulse", "speaker.latency_ms=200", "speaker.prefill_ms=500", f"server.max_utterance_s={MOST_S}",
    'voices={glow={engine="waveglow",max_streams=8}}',
)  # fmt: skip


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(pulse: PulseServer, directory: Path) -> Iterator[Daemon]:
    recordings = f"files.directory={directory}/recordings"
    with killable_daemon(directory / "run", *SETTINGS, recordings, env=pulse.env) as running:
        yield running


def send(daemon: Daemon, *words: str) -> None:
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", daemon.endpoint, "send", str(SENTENCE)]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=5 * WAIT_S)
    assert done.returncode == 0, done.stderr


def samples_of(path: Path) -> Floats:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32767)


def place(heard: Floats, part: Floats) -> int:
    """Where a part of the speech lies in what was heard, by cross-correlation."""
    size = 1 << (len(heard) + len(part)).bit_length()
    found = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(part, size)), size)
    return int(np.argmax(found[: len(heard)]))


@repeated_after_stalls
def test_device_plays_utterances_without_a_gap(daemon: Daemon, pulse: PulseServer, tmp_path: Path) -> None:
    with pulse.record("glow") as recording:
        send(daemon, "--sink", "device", "--overwrite", "--out", str(tmp_path / "o.wav"))
        heard = recording.after(0.5)
    spoken = samples_of(tmp_path / "o.wav")
    assert len(spoken) == FRAMES * HOP, "nothing was added to the file"
    begin, end = place(heard, spoken[:11025]), place(heard, spoken[-11025:]) + 11025
    assert end - begin - len(spoken) == 0, "samples of silence at the borders"
    assert np.abs(heard[begin:end] - spoken).max() < 2e-3


def test_files_of_the_utterances_join_without_a_gap(daemon: Daemon, directory: Path, tmp_path: Path) -> None:
    send(daemon, "--sink", "file:take", "--sink", "null", "--out", str(tmp_path / "o.wav"))
    names = ["take", *(f"take-{number}" for number in range(1, UTTERANCES))]
    assert {path.stem for path in (directory / "recordings").iterdir()} == set(names)
    parts = [directory / "recordings" / f"{name}.wav" for name in names]
    np.testing.assert_array_equal(np.concatenate([samples_of(part) for part in parts]), samples_of(tmp_path / "o.wav"))
