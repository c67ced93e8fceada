"""SSML as texts."""

import pytest

from glowd.clients.upstream.ssml import Piece, marked_pieces, plain_text


@pytest.mark.parametrize(
    ("ssml", "text"),
    [
        ("<speak>Hello <mark name='1'/>there.</speak>", "Hello there."),
        ('<speak xmlns="http://www.w3.org/2001/10/synthesis"><s>One</s><s>Two</s></speak>', "One Two"),
        ("<speak>a &lt; b &amp; c</speak>", "a < b & c"),
        ('<speak>The <sub alias="World Wide Web">WWW</sub> is old.</speak>', "The World Wide Web is old."),
        ("plain text", "plain text"),
        ("3 < 4 and <b>bold", "3 < 4 and bold"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><speak>&a;</speak>', "]> &a;"),
        ("", ""),
    ],
)
def test_ssml_is_the_text_that_it_says(ssml: str, text: str) -> None:
    assert plain_text(ssml).split() == text.split()


@pytest.mark.parametrize(
    ("ssml", "pieces"),
    [
        ("<speak>One.<mark name='a'/> Two?<mark name='b'/></speak>", [Piece("One.", ("a",)), Piece("Two?", ("b",))]),
        ("<speak><mark name='0'/>One <mark name='1'/>two.</speak>", [Piece("One two.")]),
        ("<speak>One.<mark name='a'/><mark name='b'/>Two</speak>", [Piece("One.", ("a", "b")), Piece("Two")]),
        ("no marks", [Piece("no marks")]),
        ("<speak/>", [Piece("")]),
    ],
)
def test_pieces_end_at_marks_between_sentences(ssml: str, pieces: list[Piece]) -> None:
    assert marked_pieces(ssml) == pieces
