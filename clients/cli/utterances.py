"""A text or mel of any length, as utterances that the daemon accepts.

Rules: no socket and no I/O. A text is cut at the ends of its sentences; a mel, and a sentence that is too long by itself, at
its quietest place.
"""

import re
import textwrap
from collections.abc import Iterator

import numpy as np

from glowd.flow.mel import Floats

SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"'”’»)\]]*(?=\s|$)|[。！？]|\n\s*\n|$)", re.DOTALL)
PIECE_CHARACTERS = 300
"""Sentences are synthesized together up to here: the first audio must come soon, and prosody needs its context."""
LONGEST_SENTENCE = 2000
"""A text without punctuation is cut here, at a space."""
QUIET_FRAMES = 9
"""A pause is looked for with a window of this length, about 0.1 s."""


def pieces_of_text(text: str) -> Iterator[str]:
    """The text in pieces of whole sentences; the first is one sentence."""
    piece = ""
    for number, match in enumerate(SENTENCE.finditer(text)):
        *whole, sentence = textwrap.wrap(match[0], LONGEST_SENTENCE) or [""]
        if whole and piece:
            yield piece
            piece = ""
        yield from whole
        if piece and (number == 1 or len(piece) + len(sentence) > PIECE_CHARACTERS):
            yield piece
            piece = ""
        piece = f"{piece} {sentence}".strip()
    if piece:
        yield piece


def cut_at_pauses(mel: Floats, max_frames: int) -> Iterator[Floats]:
    """The mel [L, M] in parts of at most `max_frames`, each cut at the quietest place of its second half."""
    while len(mel) > max_frames:
        earliest = max_frames // 2
        level = np.convolve(mel[:max_frames].mean(axis=1), np.ones(QUIET_FRAMES) / QUIET_FRAMES, "same")
        cut = earliest + 1 + int(level[earliest:-1].argmin()) if max_frames > 2 else max_frames
        yield mel[:cut]
        mel = mel[cut:]
    yield mel


def numbered(mels: Iterator[Floats], max_frames: int) -> Iterator[tuple[int, Floats]]:
    """Mels [n, M], each with the number of its utterance: as many in one as `max_frames` allows, and none in two."""
    utterance = frames = 0
    for mel in mels:
        for part in cut_at_pauses(mel, max_frames):
            if frames + len(part) > max_frames:
                utterance, frames = utterance + 1, 0
            frames += len(part)
            yield utterance, part
