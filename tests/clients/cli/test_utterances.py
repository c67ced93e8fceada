"""Texts and mels of any length, cut into utterances of a limited length."""

import numpy as np
import pytest

from glowd.clients.cli.utterances import LONGEST_SENTENCE, PIECE_CHARACTERS, cut_at_pauses, numbered, pieces_of_text
from tests.harness.mels import mel


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
        ("Hello there", ["Hello there"]),
        ('One. "Two!" (Three?) It is 3.5 m long.', ["One.", '"Two!" (Three?) It is 3.5 m long.']),
        ("Heading\n\nText. More.", ["Heading", "Text. More."]),
        ("一。二。", ["一。", "二。"]),
    ],
)
def test_text_is_cut_at_ends_of_sentences(text: str, pieces: list[str]) -> None:
    assert list(pieces_of_text(text)) == pieces


def test_pieces_are_short_and_keep_every_word() -> None:
    text = "Some words of a sentence. " * 50 + "no end " * 1000
    pieces = list(pieces_of_text(text))
    assert " ".join(pieces).split() == text.split()
    assert all(len(piece) <= PIECE_CHARACTERS for piece in pieces[:4]) and max(map(len, pieces)) <= LONGEST_SENTENCE


def test_long_mel_is_cut_at_its_pauses() -> None:
    frames = mel(250)
    frames[80:90] = frames[160:170] = -11.0
    parts = list(cut_at_pauses(frames, 100))
    assert len(parts) == 3 and all(80 <= cut % 160 <= 170 for cut in np.cumsum([len(part) for part in parts])[:1])
    np.testing.assert_array_equal(np.concatenate(parts), frames)
    assert [len(parts[0]), len(parts[0]) + len(parts[1])] == pytest.approx([85, 165], abs=5)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_utterances_are_within_the_limit_and_complete(most: int) -> None:
    mels = [mel(n) for n in (5, 1, 0, 30, 4)]
    parts = list(numbered(iter(mels), most))
    lengths: dict[int, int] = {}
    for number, part in parts:
        lengths[number] = lengths.get(number, 0) + len(part)
    assert max(lengths.values()) <= most and sum(lengths.values()) == 40
    assert list(lengths) == list(range(len(lengths))) and all(lengths.values())
