"""A text of any length as frames, in utterances that the daemon accepts.

Rules: no socket. An utterance ends between two pieces of the text, or, where one piece is too long by itself, at its
quietest place.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from glowd.clients.upstream.interface import Manner, Speech, Upstream, UpstreamError
from glowd.flow.mel import Floats, MelFormat

QUIET_FRAMES = 9
"""A pause is looked for with a window of this length, about 0.1 s."""


@dataclass(frozen=True, slots=True)
class SpokenText:
    """A text that is being spoken, as Speech; each chunk of frames comes with the number of its piece of the text."""

    stated: dict[str, Any]
    parts: Generator[tuple[int, Floats], None, None]


def speak_text(upstream: Upstream, pieces: Iterable[str], wanted: MelFormat, manner: Manner = Manner()) -> SpokenText:
    """Pieces of a text, one after the other; the first is begun now. Raises UpstreamError, here or from the parts."""
    speeches = (upstream.speak(piece, wanted, manner) for piece in pieces)
    first = next(speeches, None)
    stated = first.stated if first else wanted.to_dict()
    return SpokenText(stated, _parts(upstream.name, stated, itertools.chain([first] if first else [], speeches)))


def _parts(name: str, stated: dict[str, Any], speeches: Iterable[Speech]) -> Generator[tuple[int, Floats], None, None]:
    for number, speech in enumerate(speeches):
        with contextlib.closing(speech.frames):
            if speech.stated != stated:
                raise UpstreamError(f"{name} states another mel format than before: {speech.stated}; expected {stated}")
            for frames in speech.frames:
                yield number, frames


def cut_at_pauses(mel: Floats, max_frames: int) -> Iterator[Floats]:
    """The mel [L, M] in parts of at most `max_frames`, each cut at the quietest place of its second half."""
    while len(mel) > max_frames:
        earliest = max_frames // 2
        level = np.convolve(mel[:max_frames].mean(axis=1), np.ones(QUIET_FRAMES) / QUIET_FRAMES, "same")
        cut = earliest + 1 + int(level[earliest:-1].argmin()) if max_frames > 2 else max_frames
        yield mel[:cut]
        mel = mel[cut:]
    yield mel


def numbered(parts: Iterable[tuple[int, Floats]], max_frames: int) -> Generator[tuple[int, Floats], None, None]:
    """Frames with numbers of pieces -> frames with the numbers of their utterances, none of more than `max_frames`.

    An utterance that is half full ends with its piece.
    """
    utterance = frames = piece = 0
    for number, chunk in parts:
        if number != piece and 2 * frames >= max_frames:
            utterance, frames = utterance + 1, 0
        piece = number
        for part in cut_at_pauses(chunk, max_frames):
            if frames + len(part) > max_frames:
                utterance, frames = utterance + 1, 0
            frames += len(part)
            yield utterance, part
