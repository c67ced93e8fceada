"""Figures of a stream: stages add up to the total, and what was not measured is None."""

import dataclasses

import numpy as np
import pytest

from glowd.daemon import ipc
from glowd.daemon.gateway.streams.metrics import WINDOW, Meter, Window, stamps_of
from glowd.daemon.wire.telemetry import Stages, StageTimes, Underruns

MS = 1_000_000
RATE = 1000


def pcm(first: int = 0, samples: int = 100, t_ns: int = 0, client: bool = True, batch: int = 1) -> ipc.Pcm:
    """Frames that took 1 ms to the gateway, 2 to the engine, waited 3, and 10 in the network; t_ns: when they were sent."""
    t_client_ns = t_ns + 100 * MS
    return ipc.Pcm(
        key=1, first_sample=first, samples=samples, t_client_ns=t_client_ns if client else 0,
        t_gateway_ns=t_client_ns + 1 * MS, t_engine_ns=t_client_ns + 3 * MS, t_start_ns=t_client_ns + 6 * MS,
        t_end_ns=t_client_ns + 16 * MS, batch=batch, audio=np.zeros(samples, np.float32),
    )  # fmt: skip


def means(meter: Meter) -> dict[str, float | None]:
    return {name: times.mean_ms for name, times in meter.stages.times.items()}


def test_unmeasured_figures_are_none() -> None:
    meter = Meter(RATE)
    assert meter.stages == Stages() and meter.underruns == Underruns(client=0, engine=0, device=0, missing_samples=0)
    assert meter.ttfa_ms is meter.rtf is meter.batch is None


def test_stages_add_up_to_the_total() -> None:
    meter = Meter(RATE)
    meter.frames(101 * MS)
    meter.rendered(pcm(), 100, 120 * MS)  # 4 ms after the network was done
    meter.position(ipc.Position(1, 0, 150 * MS))
    assert means(meter) == {
        "client": 1, "transport": 2, "wait": 3, "network": 10, "return": 4, "device": 30,
    }  # fmt: skip
    assert meter.stages.mean_sum_ms == 50, "from the client's sending to the first sample's sounding"


def test_unstamped_stage_is_absent_from_total() -> None:
    meter = Meter(RATE)
    meter.rendered(pcm(client=False), 100, 120 * MS)
    assert not {"client", "device"} & meter.stages.times.keys()
    assert meter.stages.mean_sum_ms == 2 + 3 + 10 + 4


def test_unstamped_audio_is_not_counted() -> None:
    meter = Meter(RATE)
    meter.rendered(pcm(samples=0), 0, 120 * MS)
    meter.rendered(ipc.Pcm(key=1, first_sample=0, samples=9, audio=np.zeros(9, np.float32)), 9, 120 * MS)
    assert meter.rtf is None and meter.stages == Stages()


def test_streams_of_a_batch_share_its_time() -> None:
    alone, shared = Meter(RATE), Meter(RATE)
    alone.rendered(pcm(), 100, 120 * MS)
    shared.rendered(pcm(batch=4), 100, 120 * MS)
    assert alone.rtf == pytest.approx(0.1) and alone.batch == 1
    assert shared.rtf == pytest.approx(0.025) and shared.batch == 4


def test_ttfa_is_of_the_newest_utterance() -> None:
    meter = Meter(RATE)
    for t_ns, took_ms in ((0, 20), (1000 * MS, 35)):
        meter.begin()
        meter.frames(t_ns + 101 * MS)
        meter.frames(t_ns + 110 * MS)
        meter.rendered(pcm(t_ns=t_ns), 100, t_ns + (101 + took_ms) * MS)
        meter.rendered(pcm(100, t_ns=t_ns), 100, t_ns + 900 * MS)
        assert meter.ttfa_ms == took_ms


def test_position_gives_device_time_of_chunks_before_it() -> None:
    meter = Meter(RATE)
    for first in (0, 100, 200):
        meter.rendered(pcm(first), 100, 120 * MS)
    meter.position(ipc.Position(1, 150, 300 * MS))  # so sample 0 sounded at 150 ms, sample 100 at 250 ms
    device = meter.stages.times["device"]
    assert (device.count, device.mean_ms) == (2, (30 + 130) / 2)


def test_new_utterance_does_not_measure_old_audio() -> None:
    meter = Meter(RATE)
    meter.rendered(pcm(), 100, 120 * MS)
    meter.begin()
    meter.position(ipc.Position(2, 100, 900 * MS))
    assert "device" not in meter.stages.times


def test_underruns_are_counted_by_cause() -> None:
    meter = Meter(RATE)
    for cause, missing in (("client", 30), ("engine", 5), ("client", 7), ("device", 8)):
        meter.underrun(cause, missing)
    assert meter.underruns == Underruns(client=2, engine=1, device=1, missing_samples=50)


def test_percentiles_are_of_the_newest_durations() -> None:
    window = Window()
    assert window.spread() is None
    for _ in range(10):
        window.append(999 * MS)
    for duration_ms in range(WINDOW):
        window.append(duration_ms * MS)
    spread = window.spread()
    assert spread is not None and spread.count == WINDOW
    assert (spread.p50_ms, spread.mean_ms) == (WINDOW // 2, (WINDOW - 1) / 2)
    assert spread.p99_ms == WINDOW * 99 // 100


def test_single_duration_is_every_percentile() -> None:
    window = Window()
    window.append(3 * MS)
    assert window.spread() == StageTimes(p50_ms=3, p99_ms=3, mean_ms=3, count=1)


def test_unknown_stamps_are_left_out() -> None:
    stamps = stamps_of(pcm(client=False), 120 * MS)
    assert list(stamps) == ["gateway_in", "engine_in", "net_start", "net_end", "gateway_out"]
    assert list(stamps.values()) == [101 * MS, 103 * MS, 106 * MS, 116 * MS, 120 * MS]


@pytest.mark.parametrize("t_client_ns", [1, 2**63 - 1])
def test_foreign_clock_is_not_measured(t_client_ns: int) -> None:
    """Clocks of two machines started at different times, so their difference means nothing."""
    meter = Meter(RATE)
    t_ns = 90_000_000 * MS
    message = dataclasses.replace(pcm(t_ns=t_ns), t_client_ns=t_client_ns)
    meter.rendered(message, 100, t_ns + 120 * MS)
    assert "client" not in meter.stages.times and meter.stages.mean_sum_ms == 2 + 3 + 10 + 4
