"""SSML as texts."""

import pytest

from glowd.clients.upstream.ssml import plain_text


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
