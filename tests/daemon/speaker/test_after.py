"""A stream that comes after another one: the mix goes on with it at the very next sample."""

import numpy as np
import pytest

from glowd.daemon.speaker.events import Finished, Flushed, Progress, Underrun
from glowd.daemon.speaker.mixer import Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import TrackSettings
from tests.harness.signals import RATE, noise

FIRST, SECOND = noise(3333), noise(5000)[::-1].copy()


def mixed(mixer: Mixer, block: int, blocks: int) -> Samples:
    return np.concatenate([mixer.mix(block).copy() for _ in range(blocks)])


def attached(prefill: int = 1000) -> Mixer:
    """A mixer with a stream, and one that comes after it."""
    mixer = Mixer(RATE)
    for key, samples, after in ((1, FIRST, 0), (2, SECOND, 1)):
        mixer.attach(key, TrackSettings(prefill=prefill), after=after)
        mixer.push(key, 0, samples, last=True)
    return mixer


@pytest.mark.parametrize("block", [1, 100, 220, 3333, 5000])
def test_border_has_no_sample_of_silence(block: int) -> None:
    mixer = attached()
    heard = mixed(mixer, block, 8400 // block + 1)
    np.testing.assert_array_equal(heard[: len(FIRST) + len(SECOND)], np.concatenate([FIRST, SECOND]))
    events = mixer.take_events()
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(1, len(FIRST), len(FIRST)), Finished(2, len(FIRST) + len(SECOND), len(SECOND)),
    ]  # fmt: skip
    assert next(event for event in events if event.key == 2) == Progress(2, len(FIRST), 0)
    assert not any(isinstance(event, Underrun) for event in events)


def test_stream_that_is_late_begins_when_it_has_its_prefill() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, FIRST, last=True)
    mixer.attach(2, TrackSettings(prefill=1000), after=1)
    assert not mixed(mixer, 220, 30)[len(FIRST) :].any()
    mixer.push(2, 0, SECOND, last=True)
    np.testing.assert_array_equal(mixed(mixer, 220, 22), SECOND[: 22 * 220])


def test_stream_after_one_that_is_gone_begins_at_once() -> None:
    mixer = Mixer(RATE)
    mixer.attach(2, after=1)
    mixer.push(2, 0, SECOND, last=True)
    np.testing.assert_array_equal(mixer.mix(220), SECOND[:220])


@pytest.mark.parametrize("how", ["flush", "detach"])
def test_stream_after_one_that_is_not_played_is_flushed_too(how: str) -> None:
    mixer = attached()
    mixed(mixer, 220, 3)
    mixer.flush(1, 100) if how == "flush" else mixer.detach(1)
    assert not mixed(mixer, 220, 30)[300:].any()
    ends = {event.key: event for event in mixer.take_events() if isinstance(event, Flushed)}
    assert (ends[2].last_sample, ends[2].dropped) == (-1, len(SECOND)) and (1 in ends) == (how == "flush")
    assert mixer.keys == []


def test_both_go_on_in_order_when_the_gateway_is_lost() -> None:
    mixer = attached()
    heard = [mixed(mixer, 220, 3)]
    mixer.orphan_all()
    for key, samples in ((1, FIRST), (2, SECOND)):
        mixer.attach(key, TrackSettings(first_sample=0), goes_on=True, after=key - 1)
        mixer.push(key, 0, samples, last=True)
    heard.append(mixed(mixer, 220, 36))
    np.testing.assert_array_equal(np.concatenate(heard)[: len(FIRST) + len(SECOND)], np.concatenate([FIRST, SECOND]))
