"""Whether what was heard of an utterance is right: to the sample, and to the index.

Rules: pure; each function returns what is wrong, in words, "" if nothing.
"""

import numpy as np
from numpy.typing import NDArray

from glowd.daemon.wire.codec import to_s16
from glowd.flow.mel import Floats
from tests.harness.speaking import HOP

Array = NDArray[np.float32] | NDArray[np.int16]

FLUSH_SLACK_S = 0.5
"""The place of a device is known to a report (50 ms), its latency (60 ms), the fade (15 ms), and two turns of threads."""


def differs(heard: Array, expected: Array, first: int = 0) -> str:
    """Of samples from `first` on: whether each is that of `expected`."""
    wanted = expected[first : first + len(heard)]
    if len(wanted) < len(heard):
        return f"{first + len(heard)} samples, of {len(expected)} that there are"
    wrong = np.flatnonzero(heard != wanted)
    return f"{len(wrong)} samples differ, the first is {first + wrong[0]}" if len(wrong) else ""


def played_wrong(total: int, heard: Floats | None, expected: Floats) -> str:
    """An utterance that was played: complete, and if it was heard, sample by sample what it must be."""
    if total != len(expected):
        return f"played {total} samples of {len(expected)}"
    if heard is None:
        return ""
    if len(heard) != len(expected):
        return f"heard {len(heard)} samples of {len(expected)}"
    return differs(heard, expected)


def flushed_wrong(last_sample: int, heard: Floats | None, expected: Floats, sent_frames: int) -> str:
    """An utterance that was flushed: it ends within what was sent, and what was heard of it is right and ends there."""
    if not -1 <= last_sample < sent_frames * HOP:
        return f"the last sample is {last_sample}, of {sent_frames * HOP} that were sent"
    return "" if heard is None else differs(heard, expected)


def place_wrong(last_sample: int, known_samples: int, took_s: float, rate_hz: int) -> str:
    """A flush on the device: it ends where the device is, which had sounded `known_samples` when it was asked for."""
    latest = known_samples + round((took_s + FLUSH_SLACK_S) * rate_hz)
    if known_samples - 1 <= last_sample <= latest:
        return ""
    return f"the last sample is {last_sample}; {known_samples} had sounded, and it can be {latest} at most"


def file_wrong(written: Array, expected: Floats) -> str:
    """A recording: all samples, as 16-bit numbers."""
    if len(written) != len(expected):
        return f"the file has {len(written)} samples of {len(expected)}"
    return differs(written, to_s16(expected))
