"""The pump and the speaker's loop with a device that fails when it is told to."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq

from daemon import link, pump, speaker
from daemon.device import RATE_HZ, FakeOutput
from daemon.message import Message
from daemon.pump import Lost, Opened, Pump, Report, Wrote
from daemon.speaker import DeviceClock, Speaker, connect
from tests.daemon.signals import noise
from tests.daemon.speaker_rig import pcm

BLOCK = 220


class Loop:
    """A Speaker in this process, its device a FakeOutput, its gateway a socket of ours."""

    def __init__(self, run_dir: Path) -> None:
        self.output = FakeOutput(latency_ms=80)
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"ipc://{run_dir}/speaker.ipc")
        self.pump = Pump(self.output, BLOCK)
        self.link = connect(run_dir)
        self.speaker = Speaker(self.link, self.pump, BLOCK)
        self.said: list[Message] = []
        self.pump.start()

    def until(self, true: Callable[[], object], timeout_s: float = 5.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until_s, f"not in {timeout_s} s; said: {self.said[-5:]}"
            self.speaker.turn()
            while self.socket.poll(0):
                self.said.append(link.decode(self.socket.recv_multipart()[1:]))

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.socket.send_multipart([b"speaker", *link.encode(message)])

    def all(self, kind: type) -> list:
        return [message for message in self.said if isinstance(message, kind)]

    def close(self) -> None:
        self.output.hang = False
        assert self.pump.stop(2.0)
        self.link.close()
        self.socket.close()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path)
    yield loop
    loop.close()


def reports(pump: Pump, wanted: type, timeout_s: float = 5.0) -> list[Report]:
    seen, until_s = pump.reports(), time.monotonic() + timeout_s
    while not any(isinstance(report, wanted) for report in seen):
        assert time.monotonic() < until_s, f"no {wanted.__name__}; {seen}"
        time.sleep(0.005)
        seen += pump.reports()
    return seen


def test_the_pump_asks_for_one_block_at_a_time() -> None:
    output = FakeOutput(speed=20)
    pump = Pump(output, BLOCK)
    pump.start()
    assert reports(pump, Opened)[-1] == Opened("fake", RATE_HZ, 60.0)
    silent = len(output.blocks)
    for n in range(3):
        pump.feed(noise(BLOCK, n))
        report = reports(pump, Wrote)[-1]
        assert isinstance(report, Wrote) and report.samples == BLOCK and not report.dry
    assert pump.stop(1.0)
    np.testing.assert_array_equal(
        np.concatenate(output.blocks[silent:]), np.concatenate([noise(BLOCK, n) for n in range(3)])
    )


def test_the_pump_tries_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "RETRY_S", 0.02)
    output = FakeOutput()
    output.fail = "no such thing"
    failing = Pump(output, BLOCK)
    failing.start()
    time.sleep(0.5)
    lost = reports(failing, Lost)
    assert 3 <= len(lost) <= 6 and set(lost) == {Lost("no such thing")}
    output.fail = ""
    reports(failing, Opened)
    assert failing.stop(1.0)


def test_a_fault_nobody_foresaw_is_a_lost_device(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeOutput):
        def open(self) -> None:
            raise ZeroDivisionError("a driver")

    broken = Pump(Broken(), BLOCK)
    broken.start()
    assert "ZeroDivisionError: a driver" in str(reports(broken, Lost)[0])
    assert broken.stop(1.0) and caplog.records


def test_a_pump_that_hangs_says_that_it_cannot_stop() -> None:
    output = FakeOutput()
    hanging = Pump(output, BLOCK)
    hanging.start()
    reports(hanging, Opened)
    output.hang = True
    hanging.feed(noise(BLOCK))
    assert not hanging.stop(0.1)
    output.hang = False
    assert hanging.stop(1.0)


def test_a_device_that_hangs_is_gone_within_half_a_second_and_comes_back(loop: Loop) -> None:
    loop.until(lambda: loop.all(link.DeviceReady))
    loop.send(link.Attach(key=1), pcm(1, 0, noise(20_000), last=True))
    loop.until(lambda: loop.all(link.Position))
    loop.output.hang = True
    began_s = time.monotonic()
    loop.until(lambda: loop.all(link.DeviceGone))
    assert time.monotonic() - began_s < 0.55
    loop.output.hang = False
    loop.until(lambda: loop.all(link.Played))
    assert loop.all(link.Played)[0].samples == 20_000
    heard = np.concatenate(loop.output.blocks)
    assert np.count_nonzero(heard) == 20_000


def test_a_device_that_fails_is_opened_again_and_goes_on(loop: Loop) -> None:
    loop.until(lambda: loop.all(link.DeviceReady))
    loop.send(link.Attach(key=1), pcm(1, 0, noise(9000), last=True))
    loop.until(lambda: loop.all(link.Position))
    loop.output.fail = "unplugged"
    loop.until(lambda: loop.all(link.DeviceGone))
    loop.output.fail = ""
    loop.until(lambda: loop.all(link.Played))
    assert loop.output.opened == 2 and "unplugged" in loop.all(link.DeviceGone)[0].text
    assert np.count_nonzero(np.concatenate(loop.output.blocks)) >= 9000 - BLOCK


def test_a_device_that_runs_dry_is_an_underrun_of_what_sounds(loop: Loop) -> None:
    loop.until(lambda: loop.all(link.DeviceReady))
    loop.send(link.Attach(key=1), link.Attach(key=2), pcm(1, 0, noise(9000), last=True))
    loop.until(lambda: loop.all(link.Position))
    loop.output.dry_once = True
    loop.until(lambda: loop.all(link.Underrun))
    assert [u.key for u in loop.all(link.Underrun)] == [1]


def test_how_the_device_is_is_told_every_second(loop: Loop) -> None:
    loop.until(lambda: len(loop.all(link.DeviceReady)) == 2)
    ready = loop.all(link.DeviceReady)
    assert ready[0] == ready[1] and ready[0].name == "fake" and ready[0].rate_hz == RATE_HZ


def test_a_gateway_that_is_not_there_blocks_nothing(loop: Loop) -> None:
    loop.until(lambda: loop.all(link.DeviceReady))
    loop.socket.close()
    blocks = len(loop.output.blocks)
    for _ in range(40):
        loop.speaker.turn()
    assert len(loop.output.blocks) > blocks + 5


def test_a_device_that_hangs_for_long_asks_for_a_new_process(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker, "HANG_S", 0.6)
    said: list[dict] = []
    role: Any = SimpleNamespace(stopping=threading.Event(), alive=lambda: None, ready=lambda **info: said.append(info))
    threading.Timer(0.2, lambda: setattr(loop.output, "hang", True)).start()
    with pytest.raises(RuntimeError, match="only a new process cures"):
        speaker.loop(role, loop.speaker, loop.pump)
    assert said == [{"device": "fake"}]


def test_silence_is_written_in_larger_blocks_while_nobody_plays(loop: Loop) -> None:
    loop.until(lambda: len(loop.all(link.DeviceReady)) == 2)
    assert {len(block) for block in loop.output.blocks[-9:]} == {4 * BLOCK}
    loop.send(link.Attach(key=1))
    time.sleep(0.1)
    loop.until(lambda: len(loop.output.blocks[-1]) == BLOCK)


def test_a_mix_that_is_too_loud_is_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    loop.send(link.Attach(key=1, gain_db=24.0), pcm(1, 0, noise(2000), last=True))
    loop.until(lambda: "the mix was too loud in" in caplog.text)


def test_the_clock_follows_slowly_and_jumps_at_once() -> None:
    clock, step_ns = DeviceClock(), 1e9 / RATE_HZ
    clock.reset(1000, 10**9)
    assert clock.ns(1000) == 10**9 and clock.ns(1000 + RATE_HZ) == 2 * 10**9
    assert clock.correct(2000, round(10**9 + 1000 * step_ns) + 10_000_000) == 0
    assert clock.ns(2000) == pytest.approx(10**9 + 1000 * step_ns + 500_000, abs=1000)
    assert clock.correct(2000, clock.ns(2000) + 100_000_000) == 2205
    assert clock.correct(2000, clock.ns(2000)) == 0
    assert clock.correct(2000, clock.ns(2000) + 5_000_000, dry=True) == 110


def test_only_this_thread_is_hurried() -> None:
    hurried = threading.Thread(target=pump.hurry)
    hurried.start()
    hurried.join()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
