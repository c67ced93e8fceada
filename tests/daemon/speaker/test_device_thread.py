"""The device's thread and the playback loop with a device that fails when it is told to."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.speaker import device_thread, process
from glowd.daemon.speaker.clock import DeviceClock
from glowd.daemon.speaker.device_thread import DeviceThread, Lost, Opened, Report, Wrote
from tests.fakes.output import FakeOutput
from tests.harness.signals import RATE, noise
from tests.harness.speaker import BLOCK, BLOCK_MS, PlaybackHarness, pcm
from tests.harness.waiting import WAIT_S, Stalls


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[PlaybackHarness]:
    loop = PlaybackHarness(tmp_path)
    yield loop
    loop.close()


def reports(thread: DeviceThread, wanted: type, timeout_s: float = WAIT_S) -> list[Report]:
    seen, until_s = thread.reports(), time.monotonic() + timeout_s
    while not any(isinstance(report, wanted) for report in seen):
        assert time.monotonic() < until_s, f"no {wanted.__name__}; {seen}"
        time.sleep(0.005)
        seen += thread.reports()
    return seen


def test_device_thread_asks_for_one_block_at_a_time() -> None:
    output = FakeOutput(speed=20)
    thread = DeviceThread(output, BLOCK_MS)
    thread.start()
    assert reports(thread, Opened)[-1] == Opened("fake", RATE, 60.0, BLOCK)
    silent = len(output.blocks)
    for n in range(3):
        thread.feed(noise(BLOCK, n))
        report = reports(thread, Wrote)[-1]
        assert isinstance(report, Wrote) and report.samples == BLOCK and not report.underflowed
    assert thread.stop(WAIT_S)
    np.testing.assert_array_equal(
        np.concatenate(output.blocks[silent:]), np.concatenate([noise(BLOCK, n) for n in range(3)])
    )


def test_failing_device_is_opened_again_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_thread, "RETRY_S", 0.02)
    tried_s: list[float] = []

    class Failing(FakeOutput):
        def open(self) -> None:
            tried_s.append(time.monotonic())
            super().open()

    output = Failing()
    output.fail = "no such thing"
    failing = DeviceThread(output, BLOCK_MS)
    failing.start()
    lost: list[Report] = []
    while len(lost) < 5:
        lost += reports(failing, Lost)
    assert set(lost) == {Lost("no such thing")}
    pauses_s = np.diff(tried_s[:5])
    assert np.all(pauses_s >= [0.02, 0.04, 0.08, 0.16]), "a stall may make them longer, never shorter"
    output.fail = ""
    reports(failing, Opened)
    assert failing.stop(WAIT_S)


def test_unexpected_exception_is_a_lost_device(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeOutput):
        def open(self) -> None:
            raise ZeroDivisionError("a driver")

    broken = DeviceThread(Broken(), BLOCK_MS)
    broken.start()
    assert "ZeroDivisionError: a driver" in str(reports(broken, Lost)[0])
    assert broken.stop(WAIT_S) and caplog.records


def test_hanging_device_thread_reports_that_it_cannot_stop() -> None:
    output = FakeOutput()
    hanging = DeviceThread(output, BLOCK_MS)
    hanging.start()
    reports(hanging, Opened)
    output.hang = True
    hanging.feed(noise(BLOCK))
    assert not hanging.stop(0.1)
    output.hang = False
    assert hanging.stop(WAIT_S)


def test_hanging_device_is_lost_in_half_a_second_and_returns(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.send(ipc.Attach(key=1, rate_hz=RATE), pcm(1, 0, noise(20_000), last=True))
    loop.until(lambda: loop.all(ipc.Position))
    with Stalls() as stalls:
        loop.output.hang = True
        began_s = time.monotonic()
        loop.until(lambda: loop.all(ipc.DeviceGone))
        took_s = time.monotonic() - began_s
    assert took_s < 0.55 + stalls.lost_s
    loop.output.hang = False
    loop.until(lambda: loop.all(ipc.Played))
    assert loop.all(ipc.Played)[0].samples == 20_000
    heard = np.concatenate(loop.output.blocks)
    assert np.count_nonzero(heard) == 20_000


def test_lost_device_is_reopened_and_playback_continues(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.send(ipc.Attach(key=1, rate_hz=RATE), pcm(1, 0, noise(9000), last=True))
    loop.until(lambda: loop.all(ipc.Position))
    loop.output.fail = "unplugged"
    loop.until(lambda: loop.all(ipc.DeviceGone))
    loop.output.fail = ""
    loop.until(lambda: loop.all(ipc.Played))
    assert loop.output.opened == 2 and "unplugged" in loop.all(ipc.DeviceGone)[0].text
    assert np.count_nonzero(np.concatenate(loop.output.blocks)) >= 9000 - BLOCK


def test_device_underflow_is_an_underrun_of_playing_streams(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.send(ipc.Attach(key=1, rate_hz=RATE), ipc.Attach(key=2, rate_hz=RATE), pcm(1, 0, noise(9000), last=True))
    loop.until(lambda: loop.all(ipc.Position))
    loop.output.underflow = True
    loop.until(lambda: loop.all(ipc.Underrun))
    assert [u.key for u in loop.all(ipc.Underrun)] == [1]


def test_device_state_is_reported_every_second(loop: PlaybackHarness) -> None:
    loop.until(lambda: len(loop.all(ipc.DeviceReady)) == 2)
    ready = loop.all(ipc.DeviceReady)
    assert ready[0] == ready[1] and ready[0].name == "fake" and ready[0].rate_hz == RATE


def test_absent_gateway_does_not_block_playback(loop: PlaybackHarness) -> None:
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.socket.close()
    blocks = len(loop.output.blocks)
    for _ in range(40):
        loop.playback.step()
    assert len(loop.output.blocks) > blocks + 5


def test_device_that_hangs_too_long_ends_the_process(loop: PlaybackHarness) -> None:
    said: list[dict] = []

    def ready(**info: str) -> None:
        said.append(info)
        loop.output.hang = True

    role: Any = SimpleNamespace(stopping=threading.Event(), alive=lambda: None, ready=ready)
    with pytest.raises(RuntimeError, match="only a new process helps"):
        process.loop(role, loop.playback, loop.thread, hang_s=0.6)
    assert said == [{"device": "fake"}]


def test_loop_that_did_not_run_blames_no_device(loop: PlaybackHarness) -> None:
    """As a process that was stopped in the middle of a write: afterwards the write looks as if it had hung."""
    loop.until(lambda: loop.all(ipc.DeviceReady))
    loop.output.hang = True
    loop.until(lambda: loop.thread._calls % 2 == 1)  # a write that hangs; the loop must run, or there is none
    loop.playback.step()
    time.sleep(1.5)  # nobody looks
    assert loop.thread.stalled_s == 0
    loop.until(lambda: loop.thread.stalled_s > 0)


def test_silence_without_streams_is_written_in_large_blocks(loop: PlaybackHarness) -> None:
    loop.until(lambda: len(loop.all(ipc.DeviceReady)) == 2)
    loop.until(lambda: {len(block) for block in loop.output.blocks[-9:]} == {4 * BLOCK})
    loop.send(ipc.Attach(key=1, rate_hz=RATE))
    loop.until(lambda: len(loop.output.blocks[-1]) == BLOCK)


def test_mix_that_is_too_loud_is_logged(loop: PlaybackHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    loop.until(lambda: loop.all(ipc.DeviceReady))  # before that nobody may be connected, and what is sent is lost
    loop.send(ipc.Attach(key=1, rate_hz=RATE, gain_db=24.0), pcm(1, 0, noise(2000), last=True))
    loop.until(lambda: "the mix was too loud in" in caplog.text)


def test_clock_follows_jitter_slowly_and_jumps_at_once() -> None:
    clock, step_ns = DeviceClock(RATE, 0), 1e9 / RATE
    assert clock.reset(RATE, 2 * 10**9) == RATE
    clock.reset(1000, 10**9)
    assert clock.ns(1000) == 10**9 and clock.ns(1000 + RATE) == 2 * 10**9
    assert clock.update(2000, round(10**9 + 1000 * step_ns) + 10_000_000) == 0
    assert clock.ns(2000) == pytest.approx(10**9 + 1000 * step_ns + 500_000, abs=1000)
    assert clock.update(2000, clock.ns(2000) + 100_000_000) == 2205
    assert clock.update(2000, clock.ns(2000)) == 0
    assert clock.update(2000, clock.ns(2000) + 5_000_000, underflowed=True) == 110


@pytest.mark.parametrize(("latency_ms", "jitter_ms"), [(60, 17), (120, 17), (200, 44), (250, 56)])
def test_reports_of_a_long_buffer_may_be_coarse(latency_ms: float, jitter_ms: int) -> None:
    """Measured: so far off are the reports of PortAudio's device `pulse`, which has lost nothing."""
    clock = DeviceClock(RATE, 0)
    clock.expect(latency_ms)
    for sign in (1, -1):
        assert clock.update(2000, clock.ns(2000) + sign * jitter_ms * 1_000_000) == 0
    assert clock.update(2000, clock.ns(2000) + 100_000_000) == 2205
