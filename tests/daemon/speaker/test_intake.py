"""The intake: voices of any rate at the rate of the device, on an exact timeline."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon.speaker.catch_up import CatchUp
from glowd.daemon.speaker.events import Finished, Flushed, Progress
from glowd.daemon.speaker.intake import Intake
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings
from tests.harness.signals import noise

RATES = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]


def sine(seconds: float, rate_hz: int, f_hz: float = 440.0) -> Samples:
    return (0.3 * np.sin(2 * np.pi * f_hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@given(
    rates=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)),
    sizes=st.lists(st.integers(0, 2000), min_size=1, max_size=20),
    first=st.integers(0, 10_000),
)
def test_samples_of_the_stream_are_counted_exactly(rates: tuple[int, int], sizes: list[int], first: int) -> None:
    rate_hz, device_hz = rates
    intake, made = Intake(first, rate_hz, device_hz, CatchUp(rate_hz)), 0
    for number, size in enumerate(sizes):
        made += len(intake.push(noise(size), number == len(sizes) - 1, made))
    total = sum(sizes)
    assert intake.end == first + total
    assert made == pytest.approx(total * device_hz / rate_hz, abs=2)
    heard = [intake.sample(played) for played in range(0, made + 1, 97)]
    assert heard == [min(first + played * rate_hz // device_hz, first + total) for played in range(0, made + 1, 97)]
    assert total - intake.sample(made) + first <= 3 * max(1, rate_hz / device_hz)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("device_hz", [22_050, 48_000])
def test_voice_of_any_rate_sounds_at_its_own_speed_and_pitch(rate_hz: int, device_hz: int) -> None:
    mixer, source = Mixer(device_hz), sine(2, rate_hz)
    mixer.attach(1, TrackSettings(rate_hz=rate_hz))
    for begin in range(0, len(source), 512):
        mixer.push(1, begin, source[begin : begin + 512], begin + 512 >= len(source))
    heard = np.concatenate([mixer.mix(device_hz // 100).copy() for _ in range(220)])
    events = mixer.take_events()
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.samples == len(source) and finished.at == pytest.approx(2 * device_hz, abs=2)
    assert all(event.sample == event.at * rate_hz // device_hz for event in events[:-1] if isinstance(event, Progress))
    spectrum = np.abs(np.fft.rfft(heard[: 2 * device_hz] * np.hanning(2 * device_hz)))
    assert np.argmax(spectrum) / 2 == pytest.approx(440, abs=0.5)
    np.testing.assert_allclose(heard[1000:30_000], sine(2, device_hz)[1000:30_000], atol=0.085)  # 0.1 ms


def test_voices_of_three_rates_sound_together() -> None:
    mixer = Mixer(48_000)
    for key, (rate_hz, f_hz) in enumerate([(16_000, 300.0), (22_050, 500.0), (24_000, 700.0)]):
        mixer.attach(key, TrackSettings(rate_hz=rate_hz))
        mixer.push(key, 0, sine(1, rate_hz, f_hz), last=True)
    heard = np.concatenate([mixer.mix(480).copy() for _ in range(100)])
    spectrum = np.abs(np.fft.rfft(heard))
    assert sorted(np.argsort(spectrum)[-3:].tolist()) == [300, 500, 700]
    assert sorted(event.samples for event in mixer.take_events() if isinstance(event, Finished)) == [
        16_000, 22_050, 24_000,
    ]  # fmt: skip


@given(blocks=st.integers(1, 40), fade=st.integers(0, 400), rate_hz=st.sampled_from(RATES))
def test_flush_reports_samples_of_the_stream(blocks: int, fade: int, rate_hz: int) -> None:
    mixer, source = Mixer(48_000), np.full(rate_hz, 0.5, np.float32)
    mixer.attach(1, TrackSettings(rate_hz=rate_hz))
    mixer.push(1, 0, source)
    played = sum(len(mixer.mix(480)) for _ in range(blocks))
    mixer.flush(1, fade)
    pushed = len(source) * (2 if mixer.keys else 1)  # without a fade it is over at once
    mixer.push(1, len(source), source)
    for _ in range(30):
        mixer.mix(480)
    (flushed,) = [event for event in mixer.take_events() if isinstance(event, Flushed)]
    assert flushed.last_sample == pytest.approx(played * rate_hz / 48_000 + fade - 1, abs=2)
    assert flushed.last_sample + 1 + flushed.dropped == pushed
