"""The playback loop on a fake device: every gap that a listener hears is counted, with its length."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.daemon import ipc
from tests.harness.signals import RATE, noise
from tests.harness.speaker import PlaybackHarness, pcm
from tests.harness.waiting import repeated_after_stalls

SLACK_S = 0.25
"""A busy machine."""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[PlaybackHarness]:
    loop = PlaybackHarness(tmp_path)
    yield loop
    loop.close()


def play(loop: PlaybackHarness, samples: int = RATE, **attach: Any) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    first = attach.get("first_sample", 0)
    loop.send(ipc.Attach(key=1, rate_hz=RATE, **attach), pcm(1, first, noise(samples), last=True))
    loop.until(lambda: loop.all(ipc.Position))


def missing_s(loop: PlaybackHarness) -> list[float]:
    gaps = loop.all(ipc.Underrun)
    assert all(gap.by_device for gap in gaps)
    return [gap.missing_samples / RATE for gap in gaps]


def test_time_without_a_device_is_one_gap_of_its_length(loop: PlaybackHarness) -> None:
    play(loop)
    began_s = time.monotonic()
    loop.output.fail = "unplugged"
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.until(lambda: time.monotonic() > began_s + 0.7)
    loop.output.fail = ""
    loop.until(lambda: loop.all(ipc.Underrun))
    took_s = time.monotonic() - began_s
    loop.until(lambda: loop.all(ipc.Played))
    assert missing_s(loop) == [pytest.approx(took_s, abs=SLACK_S)]


def test_device_that_hangs_and_goes_on_is_one_gap(loop: PlaybackHarness) -> None:
    play(loop)
    began_s = time.monotonic()
    loop.output.hang = True
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.until(lambda: time.monotonic() > began_s + 0.8)
    loop.output.hang = False
    loop.until(lambda: loop.all(ipc.Underrun))
    took_s = time.monotonic() - began_s
    loop.until(lambda: loop.all(ipc.Played))
    assert missing_s(loop) == [pytest.approx(took_s, abs=SLACK_S)]


@repeated_after_stalls
def test_time_in_which_the_speaker_was_stopped_is_one_gap(loop: PlaybackHarness) -> None:
    """The device runs dry meanwhile, and reports an underflow only with the second block after it."""
    play(loop)
    loop.output.notices = True
    time.sleep(1.3)
    loop.until(lambda: loop.all(ipc.Played))
    assert missing_s(loop) == [pytest.approx(1.3 - loop.output.latency_ms / 1000, abs=SLACK_S)]


def test_stream_of_killed_speaker_continues_after_a_gap(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    sounded_ns = time.monotonic_ns() - 2_000_000_000
    play(loop, first_sample=5000, t_dac_ns=sounded_ns)
    loop.until(lambda: loop.all(ipc.Underrun))
    (gap,) = loop.all(ipc.Underrun)
    position = loop.all(ipc.Position)[0]
    assert (gap.sample, position.samples) == (5000, 5000)
    assert gap.missing_samples / RATE == pytest.approx((position.t_dac_ns - sounded_ns) / 1e9, abs=0.03)


def test_stream_that_breaks_is_given_up_and_others_are_played(loop: PlaybackHarness) -> None:
    play(loop)
    loop.send(ipc.Attach(key=2, rate_hz=RATE))
    loop.until(lambda: 2 in loop.playback.mixer.keys)
    loop.playback.mixer._tracks[2].push = lambda *_: 1 // 0  # type: ignore[assignment, method-assign]
    loop.send(pcm(2, 0, noise(400)))
    loop.until(lambda: loop.all(ipc.Played))
    (failed,) = loop.all(ipc.Failed)
    assert failed.key == 2 and "ZeroDivisionError" in failed.text
    assert [ended.key for ended in loop.all(ipc.Played)] == [1]


def test_what_does_not_fit_is_rejected_and_the_stream_plays_on(loop: PlaybackHarness) -> None:
    """A key that comes twice may be another client's, which must not be able to end this stream."""
    play(loop)
    loop.send(ipc.Attach(key=1, rate_hz=RATE), ipc.Attach(key=1, rate_hz=RATE, goes_on=True), pcm(1, 99, noise(400)))
    loop.until(lambda: loop.all(ipc.Played))
    assert loop.all(ipc.Failed) == [] and loop.all(ipc.Played)[0].samples == RATE


def test_pause_without_a_device_is_no_gap(loop: PlaybackHarness) -> None:
    play(loop)
    loop.send(ipc.Pause(key=1))
    loop.until(lambda: loop.playback.mixer._tracks[1].phase.name == "PAUSED")
    loop.output.fail = "unplugged"
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.output.fail = ""
    loop.send(ipc.Resume(key=1))
    loop.until(lambda: loop.all(ipc.Played))
    assert not loop.all(ipc.Underrun)


def test_device_of_another_rate_has_the_streams_attached_again(loop: PlaybackHarness) -> None:
    play(loop)
    ready = loop.all(ipc.DeviceReady)[0]
    loop.output.preferred_hz, loop.output.fail = 48_000, "unplugged"
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.output.fail = ""
    loop.received.clear()
    loop.until(lambda: loop.all(ipc.DeviceReady))
    again = loop.all(ipc.DeviceReady)[0]
    assert (ready.rate_hz, again.rate_hz) == (RATE, 48_000) and again.instance != ready.instance
    loop.send(ipc.DetachAll(), ipc.Attach(key=1, rate_hz=RATE, first_sample=3000), pcm(1, 3000, noise(3000), last=True))
    loop.until(lambda: loop.all(ipc.Played))
    assert loop.all(ipc.Played)[0].samples == 6000
    heard = np.concatenate(loop.output.blocks)
    assert loop.playback.mixer.rate_hz == 48_000 and heard.any()


def test_device_is_opened_at_the_rate_that_the_gateway_prefers(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.send(ipc.OutputRate(rate_hz=24_000))
    loop.until(lambda: loop.output.preferred_hz == 24_000)
    assert loop.output.rate_hz == RATE, "a device that is open stays as it is"
    loop.output.fail = "unplugged"
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.output.fail = ""
    loop.until(lambda: loop.all(ipc.DeviceReady)[-1].rate_hz == 24_000)


def test_latency_is_reported_from_the_arrival_of_frames(loop: PlaybackHarness) -> None:
    play_on = 4 * RATE
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.send(ipc.Attach(key=1, rate_hz=RATE), pcm(1, 0, noise(play_on)))
    loop.until(lambda: loop.all(ipc.Position))
    first_ns = time.monotonic_ns()
    for number in range(6):  # their frames came half a second after one another, and sound 3 s after they came
        t_ns, end = first_ns + number * 500_000_000, (3 + number // 2) * RATE
        loop.send(replace(pcm(1, play_on + number * 10, noise(10)), arrived_ns=t_ns, arrived_end=end))
    loop.until(lambda: loop.all(ipc.Position)[-1].latency_ns)
    newest = loop.all(ipc.Position)[-1]
    sounds_s = 3.0 + loop.output.latency_ms / 1000
    assert newest.latency_ns / 1e9 == pytest.approx(sounds_s, abs=0.6) and not newest.is_paced
    loop.send(ipc.Detach(key=1))
