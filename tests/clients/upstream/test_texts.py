"""Texts of any length, whole or still arriving, as utterances of a limited length."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from glowd.clients.upstream import Manner, SentenceCutter, Speech, UpstreamError, numbered, pieces_of_text, speak_text
from glowd.clients.upstream.sentences import LONGEST_SENTENCE, PIECE_CHARACTERS
from glowd.clients.upstream.texts import cut_at_pauses
from glowd.flow.mel import Floats, MelFormat
from tests.clients.upstream.speaking import WANTED
from tests.harness.mels import mel


class Counted:
    """An upstream: a chunk of two frames for each word, and what has been asked for and closed."""

    name = "counted"

    def __init__(self, stated: list[dict[str, Any]] | None = None) -> None:
        self.stated, self.spoken, self.ended = stated or [], list[str](), list[str]()

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        self.spoken.append(text)
        return Speech(self.stated.pop(0) if self.stated else wanted.to_dict(), self._frames(text))

    def _frames(self, text: str) -> Generator[Floats, None, None]:
        try:
            for _ in text.split():
                yield mel(2)
        finally:
            self.ended.append(text)


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
    parts = list(numbered(enumerate(mels), most))
    lengths: dict[int, int] = {}
    for number, part in parts:
        lengths[number] = lengths.get(number, 0) + len(part)
    assert max(lengths.values()) <= most and sum(lengths.values()) == 40
    assert list(lengths) == list(range(len(lengths))) and all(lengths.values())


def test_utterance_that_is_half_full_ends_with_its_piece() -> None:
    parts = [(piece, mel(10)) for piece in range(6) for _ in range(3)]
    numbers = [number for number, _ in numbered(parts, 100)]
    assert numbers == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_arriving_text_gives_the_sentences_of_the_whole(size: int) -> None:
    text = 'It is 3.5 m long. "Is it?" Yes... no.\n\nHeading\n\n一。二。 The end, of a text without a stop'
    cutter, sentences = SentenceCutter(), list[str]()
    for first in range(0, len(text), size):
        sentences += cutter.push(text[first : first + size])
    assert sentences + cutter.end() == [
        "It is 3.5 m long.", '"Is it?"', "Yes...", "no.", "Heading", "一。", "二。", "The end, of a text without a stop",
    ]  # fmt: skip


def test_sentence_comes_as_soon_as_it_is_complete() -> None:
    pieces = pieces_of_text(iter(["One. ", "Two. Three. ", "Fo", "ur."]))
    assert list(pieces) == ["One.", "Two. Three.", "Four."]


def test_text_is_spoken_piece_by_piece_and_stopped() -> None:
    upstream = Counted()
    spoken = speak_text(upstream, iter(["one two", "three", "four"]), WANTED)
    assert upstream.spoken == ["one two"] and spoken.stated == WANTED.to_dict()
    assert [next(spoken.parts)[0] for _ in range(3)] == [0, 0, 1]
    spoken.parts.close()
    assert upstream.spoken == ["one two", "three"] == upstream.ended


def test_text_without_words_has_no_parts() -> None:
    assert list(speak_text(Counted(), [], WANTED).parts) == []


def test_upstream_that_changes_its_format_raises() -> None:
    spoken = speak_text(Counted([{"preset": "matcha"}, {}]), ["a", "b"], WANTED)
    with pytest.raises(UpstreamError, match="counted states another mel format than before"):
        list(spoken.parts)
