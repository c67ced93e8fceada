"""What a page may say: anything else is refused with what is allowed."""

import json

import pytest

from glowd.clients.web.messages import MAX_TEXT, Hello, Listen, PageError, Report, Say, Voices, parse


def test_messages_are_read_by_their_type() -> None:
    assert parse('{"type": "hello", "token": "x"}') == Hello("x")
    assert parse('{"type": "voices", "unknown": 1}') == Voices()
    assert parse('{"type": "listen", "id": 1, "stream": "a.b", "rate_hz": 22050}') == Listen(1, "a.b", 22050)
    said = parse(
        json.dumps(
            {"type": "report", "id": 1, "taken": 2, "generation": 3, "sample": -1, "buffered_ms": 4, "underruns": 5}
        )
    )
    assert said == Report(1, 2, 3, -1, 4, 5)
    assert parse('{"type": "say", "id": 1, "text": "a", "voice": "", "rate_hz": 8000}') == Say(1, "a", "", 8000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a message must be a JSON map"),
        ("[1]", "a JSON map whose type is one of hello, "),
        ('{"type": "close"}', "a JSON map whose type is one of hello, "),
        ('{"type": ["hello"]}', "a JSON map whose type is one of hello, "),
        ('{"type": "hello"}', "hello.token must be text; got None"),
        ('{"type": "figures", "seen": true}', "figures.seen must be a whole number from -1 to"),
        ('{"type": "figures", "seen": 1e3}', "figures.seen must be a whole number"),
        ('{"type": "figures", "seen": -2}', "figures.seen must be a whole number"),
        ('{"type": "figures", "seen": 9007199254740992}', "figures.seen must be a whole number"),
        ('{"type": "listen", "id": 1, "stream": "*", "rate_hz": 22050}', "listen.stream must be the name of a stream; got '*'"),
        ('{"type": "listen", "id": 1, "stream": "a", "rate_hz": 7999}', "rate_hz must be from 8000 to 192000; got 7999"),
        ('{"type": "flush", "id": 1, "stream": ""}', "flush.stream must be the name of a stream"),
        ('{"type": "say", "id": 1, "text": " ", "voice": "", "rate_hz": 22050}', "say.text must have something to say"),
        ('{"type": "say", "id": 1, "text": "a", "voice": "a b", "rate_hz": 22050}', "say.voice must be the name of a voice"),
    ],
)  # fmt: skip
def test_wrong_message_is_refused_with_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(PageError) as refused:
        parse(text)
    assert said in str(refused.value) and len(str(refused.value)) < 300


def test_long_text_is_refused() -> None:
    with pytest.raises(PageError, match=f"at most {MAX_TEXT} characters; got {MAX_TEXT + 1}"):
        parse(json.dumps({"type": "say", "id": 1, "text": "a" * (MAX_TEXT + 1), "voice": "", "rate_hz": 22050}))
