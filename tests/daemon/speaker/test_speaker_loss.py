"""The sound device is lost in the middle of a word, and returns."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from glowd.daemon import ipc
from tests.harness.pulse import PulseServer
from tests.harness.signals import RATE, find, speechlike
from tests.harness.speaker import SpeakerHarness, pcm, speaker
from tests.harness.waiting import WAIT_S, Stalls, repeated_after_stalls

PREFILL = 1323


def start_playing(rig: SpeakerHarness, seconds: int = 8) -> np.ndarray:
    source = speechlike(seconds * RATE)
    rig.wait(ipc.DeviceReady)
    rig.send(ipc.Attach(key=1, rate_hz=RATE, prefill_samples=PREFILL), pcm(1, 0, source, last=True))
    rig.wait(ipc.Position, 1, count=6)
    rig.forget()
    rig.wait(ipc.Position, 1)
    return source


def noticed(rig: SpeakerHarness, loss: Callable[[], None]) -> None:
    """The speaker reports within half a second that the device is lost; a stall of the machine does not count."""
    with Stalls() as stalls:
        loss()
        lost_ns = time.monotonic_ns()
        took_s = (rig.arrival_ns(rig.wait(ipc.DeviceGone)) - lost_ns) / 1e9
    assert took_s < 0.5 + stalls.lost_s


@repeated_after_stalls
def test_removed_sink_that_returns_continues_the_stream(own_pulse: PulseServer) -> None:
    own_pulse.restart("glow")
    with speaker(own_pulse.env, "speaker.device=pulse") as rig:
        source = start_playing(rig)
        noticed(rig, lambda: own_pulse.remove_sink("glow"))
        assert "pulse" in rig.wait(ipc.DeviceGone).text
        stopped = rig.all(ipc.Position, 1)[-1].samples
        rig.forget()
        own_pulse.add_sink("glow")
        with own_pulse.record("glow") as heard:
            rig.wait(ipc.DeviceReady)
            rig.wait(ipc.Position, 1, count=12)
        again = rig.all(ipc.Position, 1)[0].samples
        assert 0 <= again - stopped <= RATE // 10
    recorded = heard.samples()
    audible = recorded[np.flatnonzero(recorded)[0] :][:8000]
    begin = find(audible[300:], source)
    assert np.abs(source[begin : begin + 7700] - audible[300:]).max() <= 2 / 32768
    if (
        len(recorded) > 12_000 and not recorded[0]
    ):  # the recorder was there first: sound went on exactly where it stopped
        assert begin - 300 == pytest.approx(again, abs=2)


@repeated_after_stalls
def test_killed_sound_server_that_returns_continues_the_stream(own_pulse: PulseServer) -> None:
    own_pulse.restart("glow")
    with speaker(own_pulse.env, "speaker.device=pulse") as rig:
        start_playing(rig)
        noticed(rig, own_pulse.kill)
        rig.send(ipc.Pause(key=1), ipc.Resume(key=1))
        stopped = rig.all(ipc.Position, 1)[-1].samples
        rig.forget()
        own_pulse.start()
        own_pulse.add_sink("glow")
        rig.wait(ipc.DeviceReady)
        assert 0 <= rig.wait(ipc.Position, 1).samples - stopped <= RATE // 10
        assert rig.process.poll() is None


@repeated_after_stalls
def test_suspended_sink_is_lost_and_can_be_flushed(own_pulse: PulseServer) -> None:
    own_pulse.restart("glow")
    with speaker(own_pulse.env, "speaker.device=pulse") as rig:
        source = start_playing(rig)
        noticed(rig, lambda: own_pulse.suspend("glow", True))
        rig.send(ipc.Flush(key=1, fade_samples=300))
        flushed = rig.wait(ipc.Flushed, 1)
        assert flushed.last_sample_played + 1 + flushed.dropped == len(source)
        rig.forget()
        own_pulse.suspend("glow", False)
        rig.wait(ipc.DeviceReady)
        rig.send(ipc.Attach(key=2, rate_hz=RATE), pcm(2, 0, source[:RATE], last=True))
        assert rig.wait(ipc.Played, 2).samples == RATE
        rig.forget()
        own_pulse.suspend("glow", True)
        rig.wait(ipc.DeviceGone)
        assert rig.process.stdin  # and a device that hangs does not keep the process from ending
        rig.process.stdin.close()
        rig.process.wait(timeout=WAIT_S)


def test_without_a_device_the_process_stays_and_names_a_remedy(own_pulse: PulseServer) -> None:
    own_pulse.kill()
    with speaker(own_pulse.env) as rig:
        assert "libasound2-plugins" in rig.status["ready"]["warning"]
        assert "PulseAudio or PipeWire" in rig.wait(ipc.DeviceGone).text
        rig.wait(ipc.DeviceGone, count=2)
        own_pulse.start()
        own_pulse.add_sink("glow")
        rig.wait(ipc.DeviceReady)


def test_unknown_device_is_named_with_the_known_ones(pulse: PulseServer) -> None:
    with speaker(pulse.env, "speaker.device=kazoo") as rig:
        text = rig.wait(ipc.DeviceGone).text
        assert "speaker.device = 'kazoo'" in text and "0 'pulse'" in text
