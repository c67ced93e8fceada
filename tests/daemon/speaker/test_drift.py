"""Clients whose clocks differ from the device's: their latency is held, and every sample is heard once. Time is simulated."""

import numpy as np
import pytest
from numpy.typing import NDArray

from glowd.daemon.speaker.drift import Arrival, Drift
from glowd.daemon.speaker.events import Finished, Flushed, Progress, Underrun
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings
from tests.harness.clocks import PacedClient, Room
from tests.harness.signals import noise

HZ, HOP = 4000, 48
SETTLED_S, WITHIN_S = 60, 0.002
F_HZ = 440.0


def sine(first: int, end: int) -> Samples:
    wave: Samples = (0.5 * np.sin(2 * np.pi * F_HZ * np.arange(first, end) / HZ)).astype(np.float32)
    return wave


def ramp(first: int, end: int) -> Samples:
    """Sample n has the value n / 2^20."""
    values: Samples = np.arange(first, end).astype(np.float32) / np.float32(1 << 20)
    return values


def heard_at_s(room: Room, client: PacedClient) -> NDArray[np.float64]:
    return np.array([event.at / room.rate_hz for event in client.progress])


def off_s(
    room: Room, client: PacedClient, since_s: float = SETTLED_S, until_s: float = np.inf, held_from_s: float = 0.5
) -> float:
    """By how much the true latency differed, at most, from the one that is held: its mean in the windows of the beginning."""
    at_s, latency_s = heard_at_s(room, client), np.array(client.latencies_s)
    held_s = latency_s[(at_s > held_from_s) & (at_s < held_from_s + 8)].mean()
    return float(np.abs(latency_s[(at_s > since_s) & (at_s < until_s)] - held_s).max())


def spectral_snr_db(heard: Samples, f_hz: float, window: int = HZ // 10) -> float:
    """The lowest SNR of a sine in any window. Its frequency may differ and move a little within one; its phase may not jump."""
    t = np.linspace(-1, 1, window)
    phase = 2 * np.pi * f_hz * np.arange(window) / HZ
    basis = np.stack([power * wave for wave in (np.cos(phase), np.sin(phase)) for power in (1, t, t**2, t**3, t**4)], 1)
    parts = np.lib.stride_tricks.sliding_window_view(heard, window)[:: window // 2].astype(np.float64).T
    factors, *_ = np.linalg.lstsq(basis, parts, rcond=None)
    fit = basis @ factors
    return float((10 * np.log10((fit**2).mean(0) / ((parts - fit) ** 2).mean(0))).min())


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [500, -500])
def test_endless_stream_keeps_its_latency_for_an_hour(ppm: float) -> None:
    client = PacedClient(ppm=ppm, least=4, most=16, late_s=0.005, rate_hz=2000, hop=24)
    room = Room([client], rate_hz=2000, block_s=0.04)
    room.run(3600)
    assert off_s(room, client) < WITHIN_S
    assert room.events == []
    assert client.progress[-1].drift_ppm == pytest.approx(ppm, abs=20)


@pytest.mark.parametrize(
    "client",
    [
        PacedClient(ppm=500),
        PacedClient(ppm=-500, least=1, most=1, late_s=0.004),
        PacedClient(ppm=500, least=4, most=16, late_s=0.004),
        PacedClient(ppm=-500, least=4, most=16, is_ahead=True),
    ],
    ids=["chunks", "frames", "jittery", "ahead"],
)
def test_latency_is_held_and_nothing_is_missing(client: PacedClient) -> None:
    room = Room([client])
    room.run(180)
    assert off_s(room, client) < WITHIN_S and room.events == []
    assert client.progress[-1].drift_ppm == pytest.approx(client.ppm, abs=25)
    client.end(room.mixer)
    room.run(1)
    assert [event.samples for event in room.events if isinstance(event, Finished)] == [client.pushed]


@pytest.mark.parametrize("ppm", [500, -500])
def test_device_whose_clock_differs_is_followed(ppm: float) -> None:
    client = PacedClient(least=4, most=16)
    room = Room([client], ppm=ppm)
    room.run(150)
    assert off_s(room, client) < WITHIN_S and room.events == []
    assert client.progress[-1].drift_ppm == pytest.approx(-ppm, abs=25)


@pytest.mark.parametrize("ppm", [500, -500])
def test_sine_stays_a_sine_while_the_clocks_differ(ppm: float) -> None:
    """In any tenth of a second of two minutes: before, while and after the speed changes."""
    client = PacedClient(ppm=ppm, least=4, most=16, source=sine)
    room = Room([client])
    room.keeps_sound = True
    room.run(120)
    heard = np.concatenate(room.heard)[HZ:]
    assert spectral_snr_db(heard, F_HZ * (1 + ppm * 1e-6)) > 90
    late = heard[-20 * HZ :] * np.hanning(20 * HZ)
    spectrum = np.abs(np.fft.rfft(late, 1 << 22))
    assert np.argmax(spectrum) * HZ / (1 << 22) == pytest.approx(F_HZ * (1 + ppm * 1e-6), abs=0.01)


def test_sample_that_is_missing_would_be_noticed() -> None:
    whole = sine(0, 8 * HZ)
    assert spectral_snr_db(whole, F_HZ) > 120
    assert spectral_snr_db(np.delete(whole, 5 * HZ), F_HZ) < 30


def test_clock_that_changes_is_followed() -> None:
    client = PacedClient(ppm=500, ppm_at=(90, -500))
    room = Room([client])
    room.run(240)
    assert off_s(room, client, SETTLED_S, 90) < WITHIN_S and off_s(room, client, 90 + SETTLED_S) < WITHIN_S
    assert client.progress[-1].drift_ppm == pytest.approx(-500, abs=25) and room.events == []


@pytest.mark.parametrize("jump_s", [0.02, -0.02])
def test_latency_returns_after_a_small_jump(jump_s: float) -> None:
    client = PacedClient(ppm=200, jump=(90, jump_s))
    room = Room([client])
    room.run(240)
    assert off_s(room, client, SETTLED_S, 90) < WITHIN_S and off_s(room, client, 90 + 80) < WITHIN_S
    assert room.events == []


@pytest.mark.parametrize("ppm", [400, 500, -300, -500])
def test_latency_that_is_shown_does_not_jump_by_a_chunk(ppm: float) -> None:
    client = PacedClient(ppm=ppm, least=4, most=4, late_s=0.004)
    Room([client]).run(60)
    shown_s = np.array([event.latency_s for event in client.progress if event.latency_s is not None])
    assert np.abs(np.diff(shown_s)).max() < 0.003 < 4 * HOP / HZ


def test_new_latency_is_held_after_a_large_jump() -> None:
    client = PacedClient(ppm=300, jump=(90, 0.2))
    room = Room([client])
    room.run(200)
    assert off_s(room, client) == pytest.approx(0.2, abs=0.01)
    assert off_s(room, client, 90 + SETTLED_S, held_from_s=91) < WITHIN_S


def test_ten_streams_of_different_clocks_are_held_at_once() -> None:
    clients = [PacedClient(key, ppm=125.0 * key - 600, least=4, most=16) for key in range(1, 10)]
    clients.append(PacedClient(10, ppm=-500, rate_hz=3200, hop=40))  # a voice of another rate
    room = Room(clients, ppm=50, block_s=0.04)
    room.run(150)
    for client in clients:
        assert off_s(room, client) < WITHIN_S
        assert client.progress[-1].drift_ppm == pytest.approx(client.ppm - 50, abs=25)
    assert room.events == []


@pytest.mark.parametrize("late_s", [0.0, 0.02])
def test_without_drift_samples_pass_bit_for_bit(late_s: float) -> None:
    source = noise(200 * HZ)
    client = PacedClient(least=4, most=16, late_s=late_s, source=lambda first, end: source[first:end])
    room = Room([client])
    room.keeps_sound = True
    room.run(120)
    heard = np.concatenate(room.heard)
    begin = int(np.flatnonzero(heard)[0])
    np.testing.assert_array_equal(heard[begin:], source[: len(heard) - begin])
    assert client.progress[-1].drift_ppm == 0


def test_stream_that_no_clock_paces_is_left_alone() -> None:
    client = PacedClient(ppm=8000)
    room = Room([client])
    room.run(60)
    assert client.latencies_s[-1] > client.latencies_s[0] + 0.4 and client.progress[-1].drift_ppm is None


@pytest.mark.parametrize("is_free", [True, False])
def test_client_that_waits_for_credit_has_no_clock(is_free: bool) -> None:
    drift = Drift()
    for second in range(1, 60):
        for part in range(5):
            t_ns = second * 1_000_000_000 + part * 200_000_000
            latency_s = 2 + 500e-6 * (second + part / 5)
            drift.arrived(Arrival(t_ns, 0, 0, is_free), latency_s, latency_s)
    assert (drift.speed > 1.0002) == is_free and (drift.ppm is not None) == is_free
    assert drift.latency_s == pytest.approx(2.03, abs=0.01)


def test_gap_does_not_make_it_forget_the_clock() -> None:
    client = PacedClient(ppm=500)
    room = Room([client])
    room.run(100)
    room.mixer.pause(1)
    room.run(0.2)
    room.mixer.resume(1)
    room.run(100)
    assert off_s(room, client, 130, held_from_s=101) < WITHIN_S
    since = [event.drift_ppm for event in client.progress if event.at > 110 * HZ and event.drift_ppm is not None]
    assert min(since) > 450


def test_stream_that_follows_another_knows_the_clock() -> None:
    first = PacedClient(1, ppm=500)
    room = Room([first])
    room.run(100)
    room.mixer.attach(2, TrackSettings(rate_hz=HZ), after=1)
    first.end(room.mixer)
    second = PacedClient(2, is_over=True)
    room.clients.append(second)
    for begin in range(0, 40 * HZ, HZ):
        room.mixer.push(2, begin, sine(begin, begin + HZ))
        room.run(0.98)
    begun, later = second.progress[0], second.progress[-1]
    assert later.sample - (later.at - begun.at) == pytest.approx(500e-6 * (later.at - begun.at), rel=0.25)


@pytest.mark.parametrize("fade", [0, 100])
def test_flush_reports_the_sample_that_was_heard_last(fade: int) -> None:
    client = PacedClient(ppm=500, source=ramp)
    room = Room([client])
    room.keeps_sound = True
    room.run(120)
    last_heard = np.concatenate(room.heard)[-1] * (1 << 20)
    room.mixer.flush(1, fade)
    room.clients.clear()
    room.mixer.mix(400)
    (flushed,) = [event for event in room.mixer.take_events() if isinstance(event, Flushed)]
    assert flushed.last_sample - fade == pytest.approx(last_heard, abs=1.5)
    assert flushed.last_sample + 1 + flushed.dropped == client.pushed
    assert flushed.last_sample - fade > 120 * HZ * 1.0003 - 0.4 * HZ  # it was played faster


def test_positions_name_the_samples_that_are_heard() -> None:
    client = PacedClient(ppm=-500, source=ramp)
    room = Room([client])
    room.keeps_sound = True
    room.run(100)
    heard = np.concatenate(room.heard)
    for event in client.progress[10:]:
        assert heard[event.at - 1] * (1 << 20) == pytest.approx(event.sample - 1, abs=1.2)


def test_stream_that_starves_is_not_kept_in_step() -> None:
    """What the resampler holds back comes from what waits: with nothing to spare, samples pass unchanged."""
    mixer, source, pushed = Mixer(HZ), ramp(0, 100 * HZ), 0
    mixer.attach(1, TrackSettings(rate_hz=HZ))
    drift = mixer._tracks[1]._intake.drift
    drift.speed = 1.0005
    for _ in range(50):
        mixer.push(1, pushed, source[pushed : pushed + 160])
        pushed += 160
        mixer.mix(160)
    progress = [event for event in mixer.take_events() if isinstance(event, Progress | Underrun)]
    assert all(event.sample % 160 < 160 for event in progress) and mixer._tracks[1]._intake._in_step.speed == 1
