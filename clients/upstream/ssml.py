"""SSML -> the text that it says, and where its marks are.

Rules: standard library only. Voices and prosody are left out; what is no well-formed SSML is a plain text.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

PAUSES = ("p", "s", "break")
"""Elements at which a sentence ends."""
DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text that has a name."""

    name: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Sentences, and the names of the marks right after them."""

    text: str
    marks: tuple[str, ...] = ()


def plain_text(ssml: str) -> str:
    """The text between the tags; a text without tags as it is."""
    return joined([token for token in tokens(ssml) if isinstance(token, str)])


def marked_pieces(ssml: str) -> list[Piece]:
    """The text in pieces that end at the marks between its sentences. Marks within a sentence are left out."""
    pieces, texts = list[Piece](), list[str]()
    for token in tokens(ssml):
        if isinstance(token, str):
            texts.append(token)
        elif SENTENCE_END.search(text := joined(texts)):
            pieces.append(Piece(text, (token.name,)))
            texts = []
        elif not text and pieces:  # right after another mark
            pieces[-1] = Piece(pieces[-1].text, (*pieces[-1].marks, token.name))
    rest = joined(texts)
    return [*pieces, *([Piece(rest)] if rest or not pieces else [])]


def joined(texts: list[str]) -> str:
    """One text, with single spaces."""
    return " ".join("".join(texts).split())


def tokens(ssml: str) -> list[str | Mark]:
    """The texts and marks, in order."""
    if DECLARATION.search(ssml):  # entities of its own could grow without bound
        return [without_tags(ssml)]
    try:
        return tokens_of(ET.fromstring(ssml))
    except ET.ParseError:
        return [without_tags(ssml)]


def tokens_of(element: ET.Element) -> list[str | Mark]:
    """The texts and marks in an element, in order."""
    name = element.tag.rpartition("}")[2].lower()
    if name == "mark":
        return [Mark(element.get("name", ""))]
    if name == "sub" and (alias := element.get("alias")):
        return [alias]
    found: list[str | Mark] = [element.text or ""]
    for child in element:
        found += [*tokens_of(child), child.tail or ""]
    return [*found, " "] if name in PAUSES else found


def without_tags(text: str) -> str:
    """The text with everything taken out that looks like a tag."""
    return re.sub(r"</?[A-Za-z!?][^>]*>", " ", text)
