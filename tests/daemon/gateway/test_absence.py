"""A gateway that did not run for a while, wherever in its loop it was, holds that against none of its peers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.clock import GatewayClock
from glowd.daemon.gateway.process import Gateway
from tests.fakes.roles import frames
from tests.harness.gateway import mel_messages
from tests.harness.own_gateway import OwnGateway, own_gateway

ABSENCE_NS = 200_000_000_000
"""Longer than any silence that is allowed."""

PLACES: dict[str, Callable[[Gateway], tuple[Any, str]]] = {
    "a message of a client": lambda gateway: (gateway.router, "handle"),
    "a message of the engine": lambda gateway: (gateway.engines["glow"], "handle"),
    "a message of the speaker": lambda gateway: (gateway.speaker, "handle"),
    "the tick of the clients": lambda gateway: (gateway.router, "tick"),
    "the tick of the speaker": lambda gateway: (gateway.speaker, "tick"),
    "a look at the streams": lambda gateway: (gateway.streams, "counts"),
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnGateway]:
    with own_gateway(tmp_path) as made:
        yield made


def silence(own: OwnGateway) -> None:
    for role in own.roles:
        role.hung.set()


@pytest.mark.parametrize("place", PLACES)
def test_stop_within_a_pass_is_held_against_nobody(
    own: OwnGateway, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def stop() -> None:
        own.time.ahead_ns += ABSENCE_NS

    own.before(monkeypatch, *PLACES[place](own.gateway), stop)
    own.one.send(wire.Status())
    own.until(lambda: own.time.ahead_ns, "the stop")
    silence(own)
    for _ in range(5):
        own.gateway.step()
    assert own.all_alive
    assert len(own.gateway.router.clients) == 2


def test_gateway_that_runs_finds_silent_peers(own: OwnGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    silence(own)
    poll = own.gateway._poller.poll
    monkeypatch.setattr(own.gateway._poller, "poll", lambda timeout_ms=None: poll(0))  # its time is the test's
    for _ in range(300):
        own.time.ahead_ns += 250_000_000
        own.gateway.step()
    assert not own.all_alive
    assert len(own.gateway.router.clients) == 0


def test_clock_excuses_before_it_says_the_time() -> None:
    now_ns, excused = [1_000_000_000], list[tuple[int, int]]()
    clock = GatewayClock(lambda began_ns, absent_ns: excused.append((began_ns, absent_ns)), lambda: now_ns[0])
    now_ns[0] += 400_000_000
    assert clock.now_ns() == now_ns[0] and excused == []
    now_ns[0] += 3_000_000_000
    assert clock.now_ns() == now_ns[0] and excused == [(1_400_000_000, 2_500_000_000)]


def test_frames_that_waited_for_the_gateway_are_not_late(own: OwnGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count as received when it stopped; those that come after it has read everything, as received then."""

    def stop() -> None:
        own.time.ahead_ns += ABSENCE_NS

    own.open(own.one, "s", "null")
    received = list[int]()
    utterance, before_ns = own.session("s").state.utterance, own.time()
    take = utterance.take

    def noting(mel: wire.Mel, now_ns: int, convert: Any) -> Any:
        received.append(now_ns)
        return take(mel, now_ns, convert)

    monkeypatch.setattr(utterance, "take", noting)
    own.before(monkeypatch, own.gateway._poller, "poll", stop)
    mels = mel_messages("s", frames(80), 4)
    own.one.send(*mels[:19])
    own.until(lambda: len(received) == 19)
    assert all(at_ns < before_ns + ABSENCE_NS // 2 for at_ns in received)
    for _ in range(3):
        own.time.ahead_ns += 400_000_000
        own.gateway.step()
    own.one.send(mels[19])
    own.until(lambda: len(received) == 20)
    assert received[-1] > before_ns + ABSENCE_NS
