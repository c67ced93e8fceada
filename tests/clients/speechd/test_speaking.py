"""A message between the two threads that may end it."""

import threading
from typing import Any, cast

import pytest

from glowd.clients.client import Stream
from glowd.clients.speechd.speaking import FADE_MS, Events, Message, Stopped
from tests.harness.waiting import WAIT_S, until


class FakeStream:
    """A stream that is flushed for as long as the test wants."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.asked, self.is_silent = threading.Event(), threading.Event()

    def flush(self, fade_ms: int) -> None:
        self.calls.append(fade_ms)
        self.asked.set()
        assert self.is_silent.wait(WAIT_S)
        self.calls.append("silent")

    def close(self) -> None:
        self.calls.append("closed")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def message(said: list[str]) -> Message:
    return Message(Events(lambda: said.append("begin"), said.append, said.append))


def in_thread(call: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def speak(message: Message, stream: FakeStream, fails: threading.Event) -> None:
    """What the thread of a message does that fails, or sees that it was stopped."""
    with pytest.raises(Stopped), message.speaking(cast(Stream, stream)):
        assert fails.wait(WAIT_S)
        raise Stopped


@pytest.mark.parametrize("stop_is_first", [True, False])
def test_message_is_flushed_once_whoever_is_first(message: Message, said: list[str], stop_is_first: bool) -> None:
    stream, fails = FakeStream(), threading.Event()
    own = in_thread(speak, message, stream, fails)
    until(lambda: "begin" in said)
    if stop_is_first:
        stopping = in_thread(message.stop, "stop")
        assert stream.asked.wait(WAIT_S)
        fails.set()
    else:
        fails.set()
        assert stream.asked.wait(WAIT_S)
        stopping = in_thread(message.stop, "stop")
    assert said == ["begin"], "it is over when nothing is heard any more"
    stream.is_silent.set()
    for thread in (own, stopping):
        thread.join(WAIT_S)
    assert stream.calls == [FADE_MS, "silent", "closed"]
    assert said == ["begin", "stop"]


def test_message_stopped_before_its_stream_plays_nothing(message: Message, said: list[str]) -> None:
    message.stop("stop")
    stream = FakeStream()
    with pytest.raises(Stopped), message.speaking(cast(Stream, stream)):
        raise AssertionError("it was begun")
    assert (stream.calls, said) == (["closed"], ["stop"])
