"""A mistake of ours in one stream ends that one, with an error to its client and a traceback in the log, and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.wire import Code
from tests.fakes.roles import HOP, frames
from tests.harness.gateway import mel_messages
from tests.harness.own_gateway import OwnClient, OwnGateway, own_gateway

PARTS: dict[str, Callable[[Session], tuple[Any, str]]] = {
    "frames of its client": lambda session: (session.client, "mel"),
    "its end": lambda session: (session.client, "end"),
    "samples of the engine": lambda session: (session.engine, "pcm"),
    "a position of the speaker": lambda session: (session.sinks, "position"),
    "its end in the speaker": lambda session: (session.sinks, "played"),
    "its state": lambda session: (session.sinks, "settle"),
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnGateway]:
    with own_gateway(tmp_path) as made:
        yield made


def fail() -> NoReturn:
    raise ZeroDivisionError("a mistake of ours")


def speak(client: OwnClient, stream: str, generation: int = 0) -> None:
    client.send(*mel_messages(stream, frames(16), 4, generation), wire.End(stream, generation, 16))


def played(client: OwnClient, stream: str, generation: int = 0) -> bool:
    endings = client.all(wire.Played)
    return any((one.stream, one.generation, one.total_samples) == (stream, generation, 16 * HOP) for one in endings)


@pytest.mark.parametrize("part", PARTS)
def test_mistake_in_one_stream_ends_only_its_utterance(
    own: OwnGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    own.open(own.one, "bad", "device", "socket")
    own.open(own.one, "beside", "null")
    own.open(own.two, "other", "device", "socket")
    own.before(monkeypatch, *PARTS[part](own.session("bad")), fail)
    for client, stream in ((own.one, "bad"), (own.one, "beside"), (own.two, "other")):
        speak(client, stream)
    own.until(lambda: own.one.all(wire.Error), "an error")
    own.until(lambda: played(own.one, "beside") and played(own.two, "other"), "the others are played")
    error = own.one.all(wire.Error)[0]
    assert (error.stream, error.code, error.fatal) == ("bad", Code.INTERNAL, True)
    assert "ZeroDivisionError: a mistake of ours" in error.text and "its log has the place" in error.text
    assert "ZeroDivisionError" in caplog.text and "fail" in caplog.text
    assert own.two.all(wire.Error) == []
    next_one = own.session("bad").state.utterance.number
    speak(own.one, "bad", next_one)
    own.until(lambda: played(own.one, "bad", next_one), "the next utterance is played")


def test_mistake_in_one_open_refuses_only_that(own: OwnGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    own.before(monkeypatch, own.gateway.pools["glow"], "require", fail)
    own.one.send(wire.Open("s", sinks=["null"]))
    own.until(lambda: own.one.all(wire.Error), "an error")
    (error,) = own.one.all(wire.Error)
    assert (error.stream, error.code, error.fatal) == ("s", Code.INTERNAL, True)
    own.open(own.one, "s", "null")


def test_stream_whose_ending_is_broken_is_closed(own: OwnGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    own.open(own.one, "bad", "null")
    own.open(own.two, "other", "null")
    session = own.session("bad")
    own.before(monkeypatch, session.client, "mel", fail)
    own.before(monkeypatch, session.state, "fail", fail)
    speak(own.one, "bad")
    own.until(lambda: own.gateway.streams.find("bad") is None, "the stream is closed")
    speak(own.two, "other")
    own.until(lambda: played(own.two, "other"), "the other is played")


def test_mistake_for_one_listener_costs_only_its_audio(own: OwnGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    own.open(own.one, "s", "socket")
    own.two.send(wire.Listen("s"))
    own.until(lambda: any(client.listening for client in own.gateway.router.clients.values()), "it listens")
    (listener,) = [client for client in own.gateway.router.clients.values() if client.listening]
    own.before(monkeypatch, listener, "offer", fail)
    speak(own.one, "s")
    own.until(lambda: played(own.one, "s"), "it is played")
    own.until(lambda: own.two.all(wire.Error), "the listener is told")
    assert own.one.all(wire.Error) == []
    (error,) = own.two.all(wire.Error)
    assert (error.stream, error.code, error.fatal) == ("s", Code.INTERNAL, False)


@pytest.mark.parametrize("part", ["the voice", "the speaker", "a snapshot"])
def test_mistake_in_a_tick_ends_nothing(
    own: OwnGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    gateway = own.gateway
    places = {
        "the voice": (gateway.pools["glow"], "tick"),
        "the speaker": (gateway.speaker, "tick"),
        "a snapshot": (gateway.publisher, "tick"),
    }
    own.open(own.one, "s", "device")
    own.before(monkeypatch, *places[part], fail)
    own.until(lambda: "a mistake of ours" in caplog.text, "the mistake")
    speak(own.one, "s")
    own.until(lambda: played(own.one, "s"), "it is played")
