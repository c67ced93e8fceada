"""A part of the daemon fails in the middle of an utterance: nothing is lost, every gap is counted, and the right one is blamed.

One daemon for all: what fails comes back, and the next test speaks through it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from glowd.clients import Client, errors
from glowd.clients.client import Stream
from glowd.daemon import wire
from glowd.daemon.wire import Snapshot, WarningCode
from tests.harness.daemon import ROOT, Daemon, running_daemon
from tests.harness.mels import speech
from tests.harness.pulse import PulseServer
from tests.harness.speaking import HOP, AudioReader, send_all
from tests.harness.waiting import WAIT_S, Stalls, repeated_after_stalls, until

MEL, THIRD = speech()[:240], 80
RATE = 22_050
BAD = "bad={engine='waveglow',checkpoint='/nowhere/x.safetensors'}"
VOICES = f"voices={{rtisi={{engine='rtisi-la',iterations=1,default=true}},{BAD}}}"
OUTAGE_S = 1.5
START_S = 0.7
"""From the first frames to the first sound: a chunk, the prefill and the latency of the device."""


@pytest.fixture(scope="module")
def own_pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    with PulseServer(tmp_path_factory.mktemp("pulse")) as server:
        server.add_sink("glow")
        yield server


@pytest.fixture(scope="module")
def daemon(own_pulse: PulseServer) -> Iterator[Daemon]:
    # Long buffers: a busy machine must not cause an underrun of its own.
    buffers = ("speaker.prefill_ms=400", "speaker.latency_ms=200")
    with running_daemon("speaker.device=pulse", *buffers, VOICES, env=own_pulse.env) as running:
        yield running


def wait_until_whole(daemon: Daemon) -> None:
    """What was broken before is there again, and the engine keeps pace."""
    with daemon.client("waits") as glow:

        def is_whole() -> bool:
            found = Snapshot.from_map(glow.status().info)
            rtisi = found.voices["rtisi"]
            return rtisi.ready and not rtisi.work.degraded and found.roles["speaker"].alive and not found.streams

        until(is_whole, "the daemon's recovery", 5 * WAIT_S)


class Spoken:
    """An utterance at the pace of speech, on the device and back to the client, in which something happens.

    Its sound is not shortened afterwards, so that it takes longer by the length of its gaps.
    """

    def __init__(self, daemon: Daemon, happens: Callable[[], object]) -> None:
        wait_until_whole(daemon)
        with daemon.client() as glow, glow.open("s", sinks=["device", "socket"], catch_up="never") as stream:
            began_s = time.monotonic()
            with Stalls() as self.stalls, AudioReader(stream) as reader:
                send_all(stream, MEL[:THIRD], (4,), realtime=True)
                happens()
                send_all(stream, MEL[THIRD:], (4,), realtime=True)
                self.played = stream.wait_played(WAIT_S)
            self.took_s = time.monotonic() - began_s
            self.samples = len(reader.samples)
            self.underruns = Snapshot.from_map(glow.status().info).streams["s"].underruns
            self.warnings = [warning.code for warning in stream.warnings if warning.code >= WarningCode.LATE_FRAMES]
            self.speaks_on(stream)

    def speaks_on(self, stream: Stream) -> None:
        with AudioReader(stream):
            stream.send(MEL[:40], WAIT_S)
            ending = stream.wait_played(WAIT_S)
        assert isinstance(ending, wire.Played) and ending.total_samples == 40 * HOP

    def check(self, cause: str, code: WarningCode, outage_s: float = 0.0) -> None:
        """Nothing is lost; the gaps have this cause, and their lengths add up to the delay.

        `outage_s`: how long the test kept something still. How long a killed process is away is the machine's affair.
        On a busy machine the sound server makes small gaps of its own, which are the device's.
        """
        assert isinstance(self.played, wire.Played)
        assert self.played.total_samples == self.samples == len(MEL) * HOP
        counts = {name: getattr(self.underruns, name) for name in ("client", "engine", "device")}
        assert sum(counts.values()) == self.played.underruns
        assert {name for name, count in counts.items() if count} - {"device"} == {cause} - {"device"} and counts[cause]
        delay_s = self.took_s - len(MEL) * HOP / RATE - START_S
        assert (self.underruns.missing_samples or 0) / RATE == pytest.approx(delay_s, abs=0.3 + self.stalls.lost_s)
        assert delay_s > outage_s / 2 and (self.underruns.missing_samples or 0) > 0
        assert code in self.warnings and {*self.warnings} <= {code, WarningCode.DEVICE_GAP}
        assert len({*self.warnings}) == len(self.warnings), "each is told once"


def kill(daemon: Daemon, role: str) -> None:
    os.kill(daemon.role_pids()[role], signal.SIGKILL)


def stop_for(daemon: Daemon, role: str, seconds: float) -> None:
    """A role stands still for a while; the client speaks on meanwhile."""
    pid = daemon.role_pids()[role]
    os.kill(pid, signal.SIGSTOP)
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {pid}"])


@repeated_after_stalls
def test_undisturbed_utterance_has_no_gap(daemon: Daemon) -> None:
    spoken = Spoken(daemon, lambda: None)
    assert isinstance(spoken.played, wire.Played) and spoken.played.underruns == 0
    assert spoken.warnings == [] and spoken.underruns.missing_samples == 0


@repeated_after_stalls
def test_sound_server_that_restarts_is_a_gap_of_the_device(daemon: Daemon, own_pulse: PulseServer) -> None:
    def restart() -> None:
        own_pulse.kill()
        own_pulse.start()
        own_pulse.add_sink("glow")

    Spoken(daemon, restart).check("device", WarningCode.DEVICE_GAP)


@repeated_after_stalls
@pytest.mark.parametrize(
    ("role", "cause", "code"),
    [("speaker", "device", WarningCode.DEVICE_GAP), ("engine rtisi", "engine", WarningCode.LATE_ENGINE)],
)
def test_killed_process_is_a_gap_of_its_own(daemon: Daemon, role: str, cause: str, code: WarningCode) -> None:
    Spoken(daemon, lambda: kill(daemon, role)).check(cause, code)


@repeated_after_stalls
@pytest.mark.parametrize(
    ("role", "cause", "code"),
    [
        ("speaker", "device", WarningCode.DEVICE_GAP),
        ("engine rtisi", "engine", WarningCode.LATE_ENGINE),
        ("gateway", "engine", WarningCode.LATE_ENGINE),
    ],
)
def test_stopped_process_is_a_gap_of_its_own(daemon: Daemon, role: str, cause: str, code: WarningCode) -> None:
    Spoken(daemon, lambda: stop_for(daemon, role, OUTAGE_S)).check(cause, code, OUTAGE_S)


@repeated_after_stalls
def test_pause_of_the_client_is_a_gap_of_the_client(daemon: Daemon) -> None:
    Spoken(daemon, lambda: time.sleep(OUTAGE_S)).check("client", WarningCode.LATE_FRAMES, OUTAGE_S)


# ------------------------------------------------------------ warnings and reasons


def glowctl(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "glowd.clients.cli.glowctl", "--endpoint", daemon.endpoint, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)


@repeated_after_stalls
def test_too_loud_a_stream_is_warned_of_on_the_command_line_once(daemon: Daemon, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", MEL)
    wait_until_whole(daemon)
    said = glowctl(daemon, "send", str(tmp_path / "m.npy"), "--gain", "20", "--pace", "realtime")
    warnings = [line for line in said.stderr.splitlines() if "full scale" in line]
    assert said.returncode == 0 and len(warnings) == 1, said.stderr
    assert warnings[0].startswith("glowctl: warning: from frame ")
    assert "with its gain, reaches" in warnings[0] and "lower its gain_db, which is 20" in warnings[0]


@repeated_after_stalls
def test_reason_of_an_absent_voice_is_shown_everywhere(daemon: Daemon, tmp_path: Path) -> None:
    why = "/nowhere/x.safetensors"
    np.save(tmp_path / "m.npy", MEL)
    with daemon.client() as glow:
        until(
            lambda: Snapshot.from_map(glow.status().info).voices["bad"].state == "away", "the end of a try to load it"
        )
        with pytest.raises(errors.DaemonError, match=r"voice 'bad' is away: .*/nowhere/x\.safetensors"):
            glow.open(voice="bad", sinks=["null"])
        voice = Snapshot.from_map(glow.status().info).voices["bad"]
        assert voice.state == "away" and why in voice.reason
    top = glowctl(daemon, "top", "--telemetry", daemon.endpoint.replace("glowd.ipc", "top.ipc"), "--batch", "-n", "1")
    for shown in (glowctl(daemon, "status").stdout, top.stdout):
        assert any(line.startswith("voice bad is away: ") and why in line for line in shown.splitlines()), shown
    said = glowctl(daemon, "send", str(tmp_path / "m.npy"), "--voice", "bad", "--sink", "null")
    assert said.returncode == 1 and why in said.stderr.splitlines()[-1]
    assert json.loads(glowctl(daemon, "status", "--json").stdout)["voices"]["bad"]["reason"] == voice.reason


# --------------------------------------------------------------------- a hung engine


def test_hung_engine_is_replaced_before_its_streams_are_given_up() -> None:
    """The shortest wait that the settings allow."""
    settings = ("supervisor.watchdog_s=2", "server.role_wait_s=7", "speaker.enabled=false")
    voice = "voices={rtisi={engine='rtisi-la',iterations=1}}"
    with running_daemon(*settings, voice) as daemon, daemon.client() as glow:
        speak_past_a_hung_engine(daemon, glow)


def speak_past_a_hung_engine(daemon: Daemon, glow: Client) -> None:
    with glow.open("s", sinks=["socket"]) as stream, AudioReader(stream) as reader:
        send_all(stream, MEL[:THIRD])
        assert reader.has_audio.wait(WAIT_S)
        os.kill(daemon.role_pids()["engine rtisi"], signal.SIGSTOP)
        send_all(stream, MEL[THIRD:])
        played = stream.wait_played(WAIT_S)
    assert isinstance(played, wire.Played) and played.total_samples == len(MEL) * HOP == len(reader.samples)
