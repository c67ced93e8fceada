"""The gateway is lost: its streams play what they have, and another gateway goes on with them."""

import numpy as np
import pytest

from glowd.daemon.speaker.events import Finished, Underrun
from glowd.daemon.speaker.mixer import ORPHAN_S, Mixer
from glowd.daemon.speaker.sample_queue import Samples
from glowd.daemon.speaker.track import STARVE_FADE_MS, TrackSettings
from tests.harness.signals import RATE, noise

BLOCK = 220
RESERVE = STARVE_FADE_MS * RATE // 1000
SOURCE = noise(100 * BLOCK)


def mixed(mixer: Mixer, blocks: int) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *(mixer.mix(BLOCK).copy() for _ in range(blocks))])


def orphaned(pushed_blocks: int, played_blocks: int) -> tuple[Mixer, Samples]:
    """A mixer whose gateway is lost, and what it has played."""
    mixer = Mixer(RATE)
    mixer.attach(1)
    mixer.push(1, 0, SOURCE[: pushed_blocks * BLOCK], last=pushed_blocks * BLOCK == len(SOURCE))
    heard = mixed(mixer, played_blocks)
    mixer.orphan_all()
    return mixer, heard


def goes_on(mixer: Mixer, first_block: int) -> None:
    """Another gateway attaches the stream and pushes it again from a block on."""
    mixer.attach(1, TrackSettings(first_sample=first_block * BLOCK), goes_on=True)
    for block in range(first_block, 100):
        mixer.push(1, block * BLOCK, SOURCE[block * BLOCK : (block + 1) * BLOCK])
    mixer.push(1, len(SOURCE), SOURCE[:0], last=True)


@pytest.mark.parametrize("known", [50, 100])
def test_stream_that_goes_on_in_time_is_heard_as_without_loss(known: int) -> None:
    mixer, before = orphaned(known, 20)
    meanwhile = mixed(mixer, 20)
    goes_on(mixer, 18)
    heard = np.concatenate([before, meanwhile, mixed(mixer, 61)])
    np.testing.assert_array_equal(heard[: len(SOURCE)], SOURCE)
    assert not heard[len(SOURCE) :].any()
    events = mixer.take_events()
    assert events[-1] == Finished(1, len(SOURCE), len(SOURCE)) and not any(isinstance(e, Underrun) for e in events)


def test_stream_that_goes_on_late_has_one_gap_of_the_daemon() -> None:
    mixer, before = orphaned(30, 20)
    heard = np.concatenate([before, mixed(mixer, 30)])
    goes_on(mixer, 18)
    heard = np.concatenate([heard, mixed(mixer, 80)])
    stop, again = 30 * BLOCK, 50 * BLOCK
    np.testing.assert_array_equal(heard[: stop - RESERVE], SOURCE[: stop - RESERVE])
    assert not heard[stop:again].any()
    np.testing.assert_array_equal(heard[again + RESERVE :][: 69 * BLOCK], SOURCE[stop + RESERVE :][: 69 * BLOCK])
    (gap,) = [event for event in mixer.take_events() if isinstance(event, Underrun)]
    assert (gap.sample, gap.missing, gap.by_device) == (stop, again - stop, True)


@pytest.mark.parametrize("ended", [True, False])
def test_stream_that_is_gone_does_not_begin_again(ended: bool) -> None:
    mixer, _ = orphaned(100 if ended else 30, 20)
    mixed(mixer, int(ORPHAN_S * RATE / BLOCK) + 10)
    assert mixer.keys == []
    goes_on(mixer, 18)
    heard = mixed(mixer, 80)
    rest = SOURCE[len(SOURCE) if ended else 30 * BLOCK :]
    np.testing.assert_array_equal(heard[RESERVE : len(rest)], rest[RESERVE:])
    assert not heard[len(rest) :].any()
    assert [event for event in mixer.take_events() if isinstance(event, Finished)][-1].samples == len(SOURCE)


def test_paused_stream_goes_on_when_it_is_attached_again() -> None:
    mixer, _ = orphaned(100, 20)
    mixer.pause(1)
    assert not mixed(mixer, 40)[5 * BLOCK :].any()
    goes_on(mixer, 18)
    assert mixed(mixer, 5).any()


def test_stream_of_a_living_gateway_is_not_taken_over() -> None:
    mixer = Mixer(RATE)
    mixer.attach(1)
    with pytest.raises(ValueError, match="track 1 exists already"):
        mixer.attach(1, goes_on=True)


def test_orphan_whose_key_begins_anew_is_replaced() -> None:
    """Its gateway attaches it again from its own beginning, as after the instance of the speaker has changed."""
    mixer, before = orphaned(30, 20)
    mixer.attach(1, TrackSettings(first_sample=len(before)))
    mixer.push(1, len(before), SOURCE[len(before) :], last=True)
    mixed(mixer, 100)
    ends = [event for event in mixer.take_events() if isinstance(event, Finished)]
    assert [event.samples for event in ends] == [len(SOURCE)]
