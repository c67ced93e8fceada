"""The speaker process with a real sound server: a recording is compared with the samples that were sent."""

import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from glowd.daemon import ipc
from tests.harness.pulse import PulseServer
from tests.harness.signals import RATE, correlation, find, noise, speechlike
from tests.harness.speaker import SpeakerHarness, pcm, speaker
from tests.harness.waiting import WAIT_S, repeated_after_stalls

PREFILL = 1323
STEP = 2 / 32768  # of the 16 bit sink
keys = count(1)


@pytest.fixture(scope="module")
def rig(pulse: PulseServer) -> Iterator[SpeakerHarness]:
    with speaker(pulse.env, "speaker.device=pulse") as rig:
        assert "pulse" in rig.status["ready"]["device"]
        rig.wait(ipc.DeviceReady)
        yield rig


def fresh(rig: SpeakerHarness) -> int:
    """The key of a new stream; nothing has been received."""
    rig.send(ipc.DetachAll())  # what a failed attempt has left
    rig.wait(ipc.DeviceReady)
    rig.forget()
    return next(keys)


@repeated_after_stalls
def test_recorded_sound_equals_sent_samples(pulse: PulseServer, rig: SpeakerHarness) -> None:
    key = fresh(rig)
    source = speechlike(3 * RATE)
    with pulse.record("glow") as heard:
        rig.send(ipc.Attach(key=key, rate_hz=RATE, prefill_samples=PREFILL))
        rig.play({key: source})
        played = rig.wait(ipc.Played, key)
        rig.listen(0.3)
    recorded = heard.samples()
    begin = find(source, recorded)
    same = recorded[begin : begin + len(source)]
    assert correlation(same, source) > 0.9999
    assert np.abs(same - source).max() <= STEP
    assert not recorded[:begin].any() and not recorded[begin + len(source) :].any()
    assert played.samples == len(source) and not rig.all(ipc.Underrun)
    assert rig.arrival_ns(played) >= played.t_dac_ns


@repeated_after_stalls
def test_positions_match_the_time_a_sample_sounds(rig: SpeakerHarness) -> None:
    key = fresh(rig)
    rig.send(ipc.Attach(key=key, rate_hz=RATE, prefill_samples=PREFILL))
    rig.play({key: speechlike(RATE)})
    played = rig.wait(ipc.Played, key)
    positions = rig.all(ipc.Position, key)
    assert positions[0].samples == 0 and len(positions) >= 15
    ahead_ms = [(p.t_dac_ns - rig.arrival_ns(p)) / 1e6 for p in positions]
    assert 20 < np.median(ahead_ms) < 120
    zero_ms = np.array([p.t_dac_ns - p.samples * 1e9 / RATE for p in positions]) / 1e6
    assert np.ptp(zero_ms) < 20
    assert abs(played.t_dac_ns - played.samples * 1e9 / RATE - zero_ms[-1] * 1e6) < 20e6


@repeated_after_stalls
def test_flush_fades_out_and_reports_the_last_sample(pulse: PulseServer, rig: SpeakerHarness) -> None:
    key = fresh(rig)
    source, fade = speechlike(6 * RATE, seed=1), 330
    with pulse.record("glow") as heard:
        rig.send(ipc.Attach(key=key, rate_hz=RATE, prefill_samples=PREFILL))
        rig.send(pcm(key, 0, source))
        rig.wait(ipc.Position, key, count=10)
        rig.send(ipc.Flush(key=key, fade_samples=fade))
        flushed = rig.wait(ipc.Flushed, key)
        rig.listen(0.4)
    recorded = heard.samples()
    end = flushed.last_sample_played + 1
    assert end + flushed.dropped == len(source)
    begin = find(source[:end], recorded)
    plain = end - fade
    assert np.abs(recorded[begin : begin + plain] - source[:plain]).max() <= STEP
    curve = 0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))
    assert np.abs(recorded[begin + plain : begin + end] - curve * source[plain:end]).max() <= STEP
    assert not recorded[begin + end :].any()


@repeated_after_stalls
def test_two_streams_are_mixed(pulse: PulseServer, rig: SpeakerHarness) -> None:
    key = fresh(rig)
    other = next(keys)
    one, two = speechlike(RATE, seed=2, peak=0.4), speechlike(RATE // 2, seed=3, peak=0.8)
    with pulse.record("glow") as heard:
        rig.send(ipc.Attach(key=key, rate_hz=RATE, prefill_samples=PREFILL))
        rig.send(ipc.Attach(key=other, rate_hz=RATE, prefill_samples=PREFILL, gain_db=-6.0))
        rig.play({key: one, other: two})
        rig.wait(ipc.Played, key)
        rig.listen(0.3)
    recorded = heard.samples()
    begin = find(one, recorded)
    rest = recorded[begin : begin + len(one)] - one
    at = find(two, rest)
    assert np.abs(rest[at : at + len(two)] - two * 10 ** (-6 / 20)).max() <= 2 * STEP
    first = [rig.all(ipc.Position, k)[0].t_dac_ns for k in (key, other)]
    assert round((first[1] - first[0]) * RATE / 1e9) == pytest.approx(at, abs=1)


@repeated_after_stalls
def test_gap_is_an_underrun_and_pause_is_not(rig: SpeakerHarness) -> None:
    key = fresh(rig)
    rig.send(ipc.Attach(key=key, rate_hz=RATE, prefill_samples=PREFILL))
    rig.send(pcm(key, 0, speechlike(6000)))
    rig.wait(ipc.Position, key)
    rig.send(ipc.Pause(key=key))
    rig.listen(0.3)
    rig.send(ipc.Resume(key=key))
    rig.listen(0.6)
    assert not rig.all(ipc.Underrun)
    rig.send(pcm(key, 6000, speechlike(3000), last=True))
    gap = rig.wait(ipc.Underrun, key)
    assert gap.sample == 6000 and 2000 < gap.missing_samples < 12_000
    assert rig.wait(ipc.Played, key).samples == 9000


@repeated_after_stalls
def test_invalid_messages_leave_other_streams_alone(rig: SpeakerHarness) -> None:
    key = fresh(rig)
    other = next(keys)
    rig.send(ipc.Attach(key=key, rate_hz=RATE), ipc.Attach(key=key, rate_hz=RATE), ipc.Attach(key=other, rate_hz=RATE))
    rig.send(pcm(key, 77, noise(100)), ipc.Drop(key=key), pcm(99_999, 0, noise(10)))
    rig.socket.send_multipart([b"speaker", b"\xc1 no map"])
    rig.send(pcm(other, 0, noise(2000), last=True))
    assert rig.wait(ipc.Played, other).samples == 2000
    rig.send(ipc.DetachAll())


def test_process_is_small_and_loads_no_torch(rig: SpeakerHarness) -> None:
    assert rig.rss_bytes() <= 120 << 20
    assert "libtorch" not in Path(f"/proc/{rig.process.pid}/maps").read_text()


@repeated_after_stalls
def test_device_of_another_rate_gets_resampled_sound(pulse: PulseServer) -> None:
    source = speechlike(RATE)
    settings = ("speaker.device=pulse", "speaker.rate_hz=48000")
    with speaker(pulse.env, *settings) as rig, pulse.record("glow") as heard:
        assert rig.wait(ipc.DeviceReady).rate_hz == 48_000
        rig.send(ipc.Attach(key=1, rate_hz=RATE, prefill_samples=PREFILL))
        rig.play({1: source})
        rig.wait(ipc.Played, 1)
        rig.listen(0.3)
        assert not rig.all(ipc.Underrun)
    recorded = heard.samples()
    begin = find(source, recorded)
    assert correlation(recorded[begin : begin + len(source)], source) > 0.98


@repeated_after_stalls  # a device that hangs for a second is not closed, and that is reported
def test_end_of_stdin_ends_the_process(pulse: PulseServer) -> None:
    with speaker(pulse.env, "speaker.device=pulse") as rig:
        assert rig.process.stdin
        rig.process.stdin.close()
        assert rig.process.wait(timeout=WAIT_S) == 0
        assert rig.process.stdout and "failed" not in rig.process.stdout.read()


@repeated_after_stalls  # a device that hangs for a second is not closed, and that is reported
def test_sigint_is_ignored_and_sigterm_ends_the_process(pulse: PulseServer) -> None:
    with speaker(pulse.env, "speaker.device=pulse") as rig:
        rig.process.send_signal(2)
        with pytest.raises(subprocess.TimeoutExpired):
            rig.process.wait(timeout=0.3)
        rig.process.terminate()
        assert rig.process.wait(timeout=WAIT_S) == 0
