"""The mixer: in any chunks, samples come out once, in order, and without a click."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowd.daemon.speaker.events import Broken, Finished, Flushed, Limited, Progress, Underrun
from glowd.daemon.speaker.mixer import KNEE, Mixer, factor
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import PAUSE_FADE_MS, STARVE_FADE_MS, TrackSettings
from tests.harness.signals import RATE, noise, tone

RESERVE = STARVE_FADE_MS * RATE // 1000
PAUSE_FADE = PAUSE_FADE_MS * RATE // 1000

sizes = st.lists(st.integers(1, 700), min_size=1, max_size=30)


def drain(mixer: Mixer, block: int = 220, blocks: int = 200) -> Samples:
    return np.concatenate([mixer.mix(block).copy() for _ in range(blocks)])


def events(mixer: Mixer, kind: type) -> list:
    return [event for event in mixer.take_events() if isinstance(event, kind)]


@given(chunks=sizes, blocks=sizes, prefill=st.integers(0, 2000))
def test_any_chunking_and_block_size_give_the_pushed_samples(
    chunks: list[int], blocks: list[int], prefill: int
) -> None:
    source, mixer, out = noise(sum(chunks)), Mixer(RATE), [np.zeros(0, np.float32)]
    mixer.attach(1, TrackSettings(prefill=prefill))
    edges = np.cumsum([0, *chunks])
    pushed = played = 0
    while mixer.keys:
        block = blocks[len(out) % len(blocks)]
        while pushed < len(chunks) and edges[pushed] - played < block + max(prefill, RESERVE):
            piece = source[edges[pushed] : edges[pushed + 1]]
            mixer.push(1, int(edges[pushed]), piece, last=pushed == len(chunks) - 1)
            pushed += 1
        out.append(mixer.mix(block).copy())
        played += block
    heard = np.concatenate(out)
    np.testing.assert_array_equal(heard[: len(source)], source)
    assert not heard[len(source) :].any()
    told = mixer.take_events()
    assert told[0] == Progress(1, 0, 0)
    assert told[-1] == Finished(1, len(source), len(source))
    assert all(isinstance(event, Progress) and event.sample == event.at for event in told[:-1])


def test_progress_is_reported_at_the_start_and_every_50_ms() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, noise(RATE), last=True)
    drain(mixer, blocks=101)
    at = [event.at for event in events(mixer, Progress)]
    assert at[0] == 0 and len(at) == 17 and set(np.diff(at)) == {1320}


def test_prefill_delays_the_start_until_enough_or_the_end() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1, TrackSettings(prefill=1000))
    mixer.push(1, 0, noise(999))
    assert not drain(mixer, blocks=3).any()
    mixer.push(1, 999, noise(1), last=False)
    assert mixer.mix(220).any()
    mixer.attach(2, TrackSettings(prefill=1000))
    mixer.push(2, 0, noise(10), last=True)
    drain(mixer, blocks=1)
    assert events(mixer, Finished) == [Finished(2, 890, 10)]


def test_empty_stream_is_finished_at_once() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1, TrackSettings(prefill=1000))
    mixer.push(1, 0, noise(0), last=True)
    mixer.mix(220)
    assert events(mixer, Finished) == [Finished(1, 0, 0)]
    assert mixer.keys == []


@pytest.mark.parametrize("block", [1, 64, 220, 1500])
def test_gap_delays_samples_and_loses_none(block: int) -> None:
    source, mixer = tone(6000), Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, source[:3000])
    first = drain(mixer, block, -(-4500 // block))
    mixer.push(1, 3000, source[3000:], last=True)
    heard = np.concatenate([first, drain(mixer, block, -(-4500 // block))])
    told = mixer.take_events()
    gap = next(event for event in told if isinstance(event, Underrun))
    assert (gap.sample, gap.at, gap.missing) == (3000, 3000, len(first) - 3000)
    np.testing.assert_array_equal(heard[: 3000 - RESERVE], source[: 3000 - RESERVE])
    again = len(first) + RESERVE
    np.testing.assert_array_equal(heard[again : again + 3000 - RESERVE], source[3000 + RESERVE :])
    assert not heard[3000 : len(first)].any()
    assert np.abs(np.diff(heard)).max() < 0.03
    assert told[-1] == Finished(1, len(first) + 3000, 6000)


def test_late_end_of_stream_is_no_underrun() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, tone(1000))
    drain(mixer, blocks=20)
    mixer.push(1, 1000, noise(0), last=True)
    mixer.mix(220)
    told = mixer.take_events()
    assert told[-1] == Finished(1, 4400, 1000)
    assert not any(isinstance(event, Underrun) for event in told)


@given(
    pushed=st.integers(0, 5000), blocks=st.integers(0, 12), block=st.integers(1, 500),
    fade=st.integers(0, 1500), ended=st.booleans(), late=st.integers(0, 300),
)  # fmt: skip
def test_flush_reports_the_last_sample_played(
    pushed: int, blocks: int, block: int, fade: int, ended: bool, late: int
) -> None:
    source = np.full(pushed, 0.5, np.float32)
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, source, last=ended)
    out = [mixer.mix(block).copy() for _ in range(blocks)]
    if not mixer.keys:  # played to its end before the flush
        return
    mixer.flush(1, fade)
    if mixer.keys and not ended:
        mixer.push(1, pushed, noise(late))
        pushed += late
    out.append(drain(mixer, block, 1500 // block + 2))
    heard = np.concatenate(out)
    flushed = events(mixer, Flushed)[0]
    assert flushed.last_sample == np.count_nonzero(heard) - 1 == (np.flatnonzero(heard)[-1] if heard.any() else -1)
    assert flushed.last_sample + 1 + flushed.dropped == pushed
    assert not heard[flushed.at :].any()
    assert np.all(np.diff(heard[max(0, blocks * block) :]) <= 0)
    assert mixer.keys == []


def test_flush_of_a_silent_stream_plays_nothing() -> None:
    mixer = Mixer(RATE)
    for key in (1, 2):
        mixer.attach(key, TrackSettings(prefill=500))
        mixer.push(key, 0, noise(2000))
    mixer.pause(2)
    mixer.stop_output()
    mixer.flush(1, 300)
    mixer.flush(2, 300)
    assert events(mixer, Flushed) == [Flushed(1, 0, -1, 2000), Flushed(2, 0, -1, 2000)]


def test_detach_fades_out_without_an_event() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, tone(4000))
    drain(mixer, blocks=5)
    mixer.take_events()
    mixer.detach(1)
    mixer.attach(1, TrackSettings(prefill=1000))  # the key is free at once
    heard = drain(mixer, blocks=2)
    assert np.flatnonzero(heard)[-1] == 219 and mixer.take_events() == []
    mixer.detach(1)
    assert mixer.keys == []


def test_pause_holds_the_position() -> None:
    source, mixer = tone(8000), Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, source, last=True)
    before = drain(mixer, blocks=5)
    mixer.pause(1)
    paused = drain(mixer, blocks=5)
    mixer.resume(1)
    heard = np.concatenate([before, paused, drain(mixer, blocks=40)])
    stopped = len(before) + PAUSE_FADE
    assert not heard[stopped : len(before) + len(paused)].any()
    again = len(before) + len(paused) + RESERVE
    np.testing.assert_array_equal(heard[again : again + 8000 - stopped - RESERVE], source[stopped + RESERVE :])
    assert np.abs(np.diff(heard)).max() < 0.03
    assert events(mixer, Finished)[0].samples == 8000


def test_stopped_output_continues_at_the_held_position() -> None:
    source, mixer = tone(9000), Mixer(RATE)
    mixer.attach(1)
    mixer.attach(2)
    mixer.push(1, 0, source, last=True)
    mixer.push(2, 0, source)
    drain(mixer, blocks=10)
    mixer.flush(2, 400)
    mixer.mix(220)
    mixer.stop_output()
    assert events(mixer, Flushed) == [Flushed(2, 2420, 2419, 9000 - 2420)]
    heard = drain(mixer, blocks=40)
    assert abs(heard[0]) < 0.01
    np.testing.assert_array_equal(heard[RESERVE : 9000 - 2420], source[2420 + RESERVE :])


def test_stream_that_starts_in_its_middle_is_faded_in() -> None:
    source, mixer = tone(9000), Mixer(RATE)
    mixer.attach(1, TrackSettings(first_sample=2000))
    mixer.push(1, 2000, source[2000:], last=True)
    heard = drain(mixer, blocks=40)
    assert abs(heard[0]) < 0.01 and np.abs(np.diff(heard)).max() < 0.03
    np.testing.assert_array_equal(heard[RESERVE:7000], source[2000 + RESERVE :])
    told = mixer.take_events()
    assert (told[0], told[-1]) == (Progress(1, 0, 2000), Finished(1, 7000, 9000))


def test_device_underflow_is_an_underrun_of_playing_streams() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.attach(2, TrackSettings(prefill=9000))
    for key in (1, 2):
        mixer.push(key, 0, noise(3000))
    mixer.mix(220)
    mixer.miss(55)
    assert events(mixer, Underrun) == [Underrun(1, 220, 220, 55, by_device=True)]


@given(gap_blocks=st.integers(0, 9), gain_db=st.floats(-40, 0))
def test_two_streams_are_summed(gap_blocks: int, gain_db: float) -> None:
    one, two, mixer = noise(5000, 1), noise(4000, 2), Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, one, last=True)
    out = [drain(mixer, 100, gap_blocks)] if gap_blocks else []
    mixer.attach(2, TrackSettings(gain=factor(gain_db)))
    mixer.push(2, 0, two, last=True)
    heard = np.concatenate([*out, drain(mixer, 100, 60)])
    wanted = np.zeros(len(heard), np.float64)
    wanted[:5000] += one
    wanted[gap_blocks * 100 :][:4000] += two * 10 ** (gain_db / 20)
    np.testing.assert_allclose(heard, wanted, atol=1e-6)
    assert mixer.limited_samples == 0


def test_gain_moves_smoothly() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, np.full(6000, 0.5, np.float32), last=True)
    before = drain(mixer, blocks=5)
    mixer.gain(1, -20.0)
    heard = np.concatenate([before, drain(mixer, blocks=10)])
    assert np.all(heard[: len(before)] == 0.5)
    np.testing.assert_allclose(heard[len(before) + 441 :], 0.05, rtol=1e-6)
    assert np.abs(np.diff(heard)).max() < 0.002


def test_loud_sums_are_limited_smoothly_and_counted() -> None:
    mixer = Mixer(RATE)
    ramp = np.linspace(-1, 1, 4000, dtype=np.float32)
    for key in (1, 2):
        mixer.attach(key)
        mixer.push(key, 0, ramp, last=True)
    heard = mixer.mix(4000).copy()
    loud = np.abs(2 * ramp) > KNEE
    np.testing.assert_array_equal(heard[~loud], (2 * ramp)[~loud])
    assert np.abs(heard).max() <= 1.0 and np.all(np.diff(heard) >= 0)
    assert np.diff(heard).max() <= 2 * 2 / 3999 * 1.01
    assert mixer.limited_samples == np.count_nonzero(loud)
    told = [event for event in mixer.take_events() if isinstance(event, Limited)]
    assert [(event.key, event.peak, event.streams) for event in told] == [(1, 2.0, 2), (2, 2.0, 2)]


def test_only_streams_that_sound_are_told_of_the_limiter_once() -> None:
    mixer = Mixer(RATE)
    for key in (1, 2):
        mixer.attach(key, TrackSettings(gain=4.0))
    mixer.push(1, 0, np.full(RATE, 0.5, np.float32), last=True)
    drain(mixer)
    told = [event for event in mixer.take_events() if isinstance(event, Limited)]
    assert [(event.key, event.peak, event.streams) for event in told] == [(1, 2.0, 1)]


def test_nan_is_silence_and_infinity_full_scale() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, np.array([0.1, np.nan, np.inf, -np.inf, 0.2], np.float32), last=True)
    heard = mixer.mix(5)
    np.testing.assert_allclose(heard, [0.1, 0.0, 0.975, -0.975, 0.2], atol=0.01)


def test_samples_out_of_order_are_rejected() -> None:
    mixer = Mixer(RATE)
    mixer.attach(7, TrackSettings(first_sample=100))
    mixer.push(7, 100, noise(10))
    for first in (0, 109, 111):
        with pytest.raises(ValueError, match=rf"track 7: samples begin at {first}; expected 110"):
            mixer.push(7, first, noise(10))
    mixer.push(7, 110, noise(10), last=True)
    with pytest.raises(ValueError, match="expected none"):
        mixer.push(7, 120, noise(10))
    with pytest.raises(ValueError, match="track 7 exists already"):
        mixer.attach(7)


def test_stream_that_cannot_be_mixed_leaves_the_others_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    source, mixer = noise(2000), Mixer(RATE)
    for key in (1, 2):
        mixer.attach(key)
        mixer.push(key, 0, source, last=True)
    monkeypatch.setattr(mixer._tracks[1], "add_to", lambda *_: 1 // 0)
    np.testing.assert_array_equal(drain(mixer)[: len(source)], source)
    told = mixer.take_events()
    assert [(event.key, type(event.error)) for event in told if isinstance(event, Broken)] == [(1, ZeroDivisionError)]
    assert Finished(2, len(source), len(source)) in told


def test_unknown_keys_are_ignored() -> None:
    mixer = Mixer(RATE)
    mixer.push(1, 0, noise(10))
    mixer.flush(1, 10)
    mixer.detach(1)
    mixer.pause(1)
    mixer.resume(1)
    mixer.gain(1, 0.0)
    assert not mixer.mix(10).any() and mixer.take_events() == []
