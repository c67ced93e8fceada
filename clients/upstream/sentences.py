"""A text of any length, whole or still arriving, in pieces that are spoken one after the other.

Rules: no I/O. A text is cut at the ends of its sentences. While a text arrives, a sentence ends where white space follows
its end, because "3." may go on as "3.5".
"""

import re
import textwrap
from collections.abc import Iterable, Iterator

SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]|\n\s*\n)", re.DOTALL)
PIECE_CHARACTERS = 300
"""Sentences are spoken together up to here: the first audio must come soon, and prosody needs its context."""
LONGEST_SENTENCE = 2000
"""A text without punctuation is cut here, at a space."""


class SentenceCutter:
    """The sentences of a text that arrives in chunks, cut anywhere."""

    def __init__(self) -> None:
        self._rest = ""

    def push(self, text: str) -> list[str]:
        """The sentences that this text completes."""
        self._rest += text
        sentences, done = list[str](), 0
        for match in SENTENCE.finditer(self._rest):
            sentences += cut_long(match[0])
            done = match.end()
        self._rest = self._rest[done:]
        if len(self._rest) > 2 * LONGEST_SENTENCE:
            *whole, self._rest = cut_long(self._rest)
            sentences += whole
        return sentences

    def end(self) -> list[str]:
        """The last sentence, if there is one: the text ends here."""
        rest, self._rest = self._rest, ""
        return cut_long(rest)


def cut_long(sentence: str) -> list[str]:
    """A sentence in parts of at most LONGEST_SENTENCE characters; none, if it is blank."""
    return textwrap.wrap(sentence.strip(), LONGEST_SENTENCE)


def pieces_of_text(text: str | Iterable[str]) -> Iterator[str]:
    """The text, or the chunks of one, in pieces of whole sentences; the first is one sentence."""
    first = True
    for sentences in completed(text):
        if first and sentences:
            first = False
            yield sentences.pop(0)
        yield from together(sentences)


def completed(text: str | Iterable[str]) -> Iterator[list[str]]:
    """The sentences that each chunk completes, then the last one; all at once of a whole text."""
    cutter = SentenceCutter()
    if isinstance(text, str):
        yield cutter.push(text) + cutter.end()
        return
    for chunk in text:
        yield cutter.push(chunk)
    yield cutter.end()


def together(sentences: Iterable[str]) -> Iterator[str]:
    """Sentences in pieces of up to PIECE_CHARACTERS; a longer sentence stands alone."""
    piece = ""
    for sentence in sentences:
        if piece and len(piece) + len(sentence) > PIECE_CHARACTERS:
            yield piece
            piece = ""
        piece = f"{piece} {sentence}".strip()
    if piece:
        yield piece
