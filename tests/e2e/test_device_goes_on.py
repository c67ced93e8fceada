"""The gateway, or the whole daemon, is killed while the device plays: what sounds goes on where it was."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import Client
from glowd.daemon import wire
from glowd.flow.mel import Floats
from tests.harness.daemon import Daemon, kill, killable_daemon
from tests.harness.mels import speech
from tests.harness.pulse import PulseServer
from tests.harness.speaking import HOP, AudioReader
from tests.harness.waiting import WAIT_S, repeated_after_stalls, until

MEL = speech()
RATE_HZ = 22050
SETTINGS = (
    "speaker.device=pulse", "speaker.latency_ms=200", "speaker.prefill_ms=1000", "server.credit_ms=5000",
    'voices={glow={engine="waveglow",max_streams=8}}',
)  # fmt: skip
"""Long buffers: these tests compare audio, and a busy machine must not cause other gaps."""
FADE = RATE_HZ * 25 // 1000
"""Around a gap the sound fades, and is not compared."""


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="glowd-") as name:
        yield Path(name)


def place(heard: Floats, part: Floats) -> int:
    """Where a part of the speech lies in what was heard, by cross-correlation."""
    size = 1 << (len(heard) + len(part)).bit_length()
    found = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(part, size)), size)
    return int(np.argmax(found[: len(heard)]))


def agreement(heard: Floats, spoken: Floats) -> int:
    """How many samples two signals have in common from their beginning."""
    length = min(len(heard), len(spoken))
    wrong = np.flatnonzero(np.abs(heard[:length] - spoken[:length]) > 2e-3)
    return int(wrong[0]) if len(wrong) else length


def halves(heard: Floats, spoken: Floats) -> tuple[int, int, int]:
    """How much of the speech was heard before a gap, how much after it, and the length of the gap."""
    second = RATE_HZ
    first, last = place(heard, spoken[:second]), place(heard, spoken[-second:]) + second
    before = agreement(heard[first:last], spoken)
    after = agreement(heard[first:last][::-1], spoken[::-1])
    return before, after, last - first - len(spoken)


def spoken_with_loss(glow: Client, loss: object) -> tuple[Floats, wire.Played]:
    """Speak the sentence on the device and lose the daemon after more than a second of sound; all of its audio."""
    with glow.open(sinks=["device", "socket"], seed=1) as stream, AudioReader(stream) as reader:
        stream.send(MEL[:400], WAIT_S)
        delivered = "delivered_samples"
        until(
            lambda: glow.status().info["streams"][stream.name][delivered] > 3 * RATE_HZ // 2,
            "a second and a half of sound",
        )
        assert callable(loss)
        loss()
        stream.send(MEL[400:], 5 * WAIT_S)
        played = stream.wait_played(5 * WAIT_S)
    assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * HOP == len(reader.samples)
    return reader.samples, played


@repeated_after_stalls
def test_device_plays_on_while_the_gateway_is_restarted(pulse: PulseServer, run_dir: Path) -> None:
    with killable_daemon(run_dir, *SETTINGS, env=pulse.env) as daemon, daemon.client() as glow:

        def kill_gateway() -> None:
            os.kill(daemon.role_pids()["gateway"], signal.SIGKILL)

        with pulse.record("glow") as recording:
            spoken, played = spoken_with_loss(glow, kill_gateway)
            heard = recording.after(0.5)
    before, after, gap = halves(heard, spoken)
    assert gap >= -2, "nothing is left out"
    if played.underruns:  # the gateway was away for longer than the speaker had audio
        assert 0 <= len(spoken) - before - after <= 2 * FADE, "nothing is missing, nothing comes twice"
    else:
        assert before == len(spoken) and gap <= 2


@repeated_after_stalls
def test_device_goes_on_after_the_daemon_was_started_again(pulse: PulseServer, run_dir: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(killable_daemon(run_dir, *SETTINGS, env=pulse.env))
        glow = stack.enter_context(Client(first.endpoint, timeout_s=WAIT_S, reconnect_s=5 * WAIT_S))

        def restart() -> Daemon:
            kill(first)
            return stack.enter_context(killable_daemon(run_dir, *SETTINGS, env=pulse.env))

        with pulse.record("glow") as recording:
            spoken, played = spoken_with_loss(glow, restart)
            heard = recording.after(0.5)
    before, after, gap = halves(heard, spoken)
    assert played.underruns >= 1 and gap > RATE_HZ // 2
    assert -0.2 * RATE_HZ <= len(spoken) - before - after <= 0.2 * RATE_HZ, (before, after, gap)
