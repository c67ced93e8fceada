"""A gateway process and engines that join it by TCP: who may, under which name, and what a bad one costs: nobody anything."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from glowd.daemon import engine_link, ipc, wire
from glowd.daemon.gateway.handles.engine import MAX_FAILURES, EngineHandle
from glowd.daemon.gateway.joining import JoinedEngine, Joining
from glowd.daemon.gateway.placement.roster import Roster
from glowd.daemon.wire.telemetry import STAGES, Capacity, Snapshot
from tests.daemon.link_messages import INFO
from tests.fakes.joined import FakeJoined
from tests.fakes.roles import HOP, frames
from tests.harness.gateway import UtteranceClient, mel_messages
from tests.harness.joined_gateway import Place, engine_of, names, running_place
from tests.harness.waiting import WAIT_S, until

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def place() -> Iterator[Place]:
    with running_place() as found:
        yield found


def speak(place: Place, count: int, go: threading.Event) -> list[UtteranceClient]:
    """Streams in the middle of their utterances."""
    spoken = [UtteranceClient(place.endpoint, f"s{n}", frames(300, n), 3, n, go=go) for n in range(count)]
    place.wait_for("speaking", lambda found: sum(bool(one.made_samples) for one in found.streams.values()) == count)
    return spoken


def test_engines_share_a_key_and_get_names_of_their_own(place: Place) -> None:
    two = [place.join("one"), place.join("one")]
    assert [engine.joined and engine.joined.name for engine in two] == ["glow/one", "glow/one-2"]
    two[0].crash()
    place.wait_for("away", lambda found: not engine_of(found, two[0]).ready)
    again = place.join("one")
    assert again.joined and again.joined.name == "glow/one", "the place of one that is gone is taken"
    assert names(place.client().status()) == {"glow/one", "glow/one-2"}


def test_engine_whose_clock_is_hours_ahead_has_true_stages(place: Place) -> None:
    engine = place.join("far", ahead_ns=5 * HOUR_NS)
    found = place.wait_for("a link", lambda found: (one := engine_of(found, engine).link) and one.trip_ms is not None)
    link = engine_of(found, engine).link
    assert link and link.version == engine_link.VERSION and link.jitter_ms is not None
    assert link.ahead_ms == pytest.approx(5 * HOUR_NS / 1e6, abs=1000)
    check_stages(place)


def check_stages(place: Place) -> None:
    """Speak; the stages must add up to what has passed at most."""
    go = threading.Event()
    began_s = time.monotonic()
    (spoken,) = speak(place, 1, go)
    (stream,) = place.client().status().streams.values()
    passed_ms = 1000 * (time.monotonic() - began_s)
    times = stream.stages.times
    assert set(times) == set(STAGES) - {"device"}
    assert all(0 <= (one.mean_ms or 0.0) <= passed_ms for one in times.values()), times
    assert (stream.stages.mean_sum_ms or 0.0) <= passed_ms
    go.set()
    spoken.check()


TURNED_AWAY: dict[str, tuple[dict[str, Any], str]] = {
    "voice": ({"voice": "other"}, "there is no voice 'other' here; add [voices.other] with devices = []; voices: glow"),
    "version": ({"versions": (8, 9)}, "it speaks the versions 8 to 9 of the engine link"),
    "steps": ({"chunk_frames": 12}, "its chunk_frames is 12, and voices.glow.chunk_frames is 4 here"),
}


@pytest.mark.parametrize("case", TURNED_AWAY)
def test_engine_that_does_not_fit_is_told_why(place: Place, case: str) -> None:
    about, reason = TURNED_AWAY[case]
    engine = place.start("odd", **about)
    until(lambda: engine.turned_away, "an answer")
    assert reason in engine.turned_away
    assert names(place.client().status()) == set()


def test_only_keys_of_engines_are_let_in(place: Place) -> None:
    strangers = [place.start("no", place.key(role, role)) for role in ("admin", "push")]
    place.join("yes")
    assert not any(engine.joined or engine.turned_away for engine in strangers), "no handshake, so no answer"
    assert names(place.client().status()) == {"glow/yes"}


def test_engine_of_revoked_key_is_turned_away(place: Place) -> None:
    place.join("stays")
    gone, go = place.join("gone", place.key("temporary")), threading.Event()
    spoken = speak(place, 4, go)
    place.keys.revoke("temporary")
    until(lambda: gone.turned_away, "the end")
    assert "the key temporary was revoked" in gone.turned_away
    go.set()
    for one in spoken:
        one.check()
    place.wait_for("gone", lambda found: names(found) == {"glow/stays"})


def noise(engine: FakeJoined) -> None:
    random = np.random.default_rng(0)
    engine.outbox.extend([random.bytes(80), random.bytes(700)] for _ in range(20))


def alien(engine: FakeJoined) -> None:
    """Messages of other protocols, and of the gateway's own side."""
    for message in (wire.Open("s0"), wire.Hello("engine")):
        engine.outbox.extend([wire.encode(message)] * 10)
    engine.outbox.append(engine_link.encode(engine_link.Dismissed()))


def pcm_of(engine: FakeJoined, **changes: Any) -> list[bytes]:
    """Samples of a stream of this engine, which are as told."""
    key, stream = next(iter(engine.streams.items()))
    first = (stream.first_frame + stream.done) * HOP
    pcm = ipc.Pcm(key, first, 64, audio=np.zeros(64, np.float32))
    return engine_link.encode(replace(pcm, **changes))


def gap(engine: FakeJoined) -> None:
    engine.outbox.append(pcm_of(engine, first_sample=10_000_000))


def too_many(engine: FakeJoined) -> None:
    samples = 400 * HOP
    engine.outbox.append(pcm_of(engine, samples=samples, audio=np.zeros(samples, np.float32)))


def early_end(engine: FakeJoined) -> None:
    engine.outbox.append(pcm_of(engine, last=True))


def not_finite(engine: FakeJoined) -> None:
    engine.outbox.append(pcm_of(engine, audio=np.full(64, np.nan, np.float32)))


def far_too_loud(engine: FakeJoined) -> None:
    engine.outbox.append(pcm_of(engine, audio=np.full(64, 1e9, np.float32)))


def failures(engine: FakeJoined) -> None:
    """Of streams that it does not have."""
    engine.outbox.extend(engine_link.encode(ipc.Failed(key, "no")) for key in range(20))


BAD: list[Callable[[FakeJoined], None]] = [noise, alien, gap, too_many, early_end, not_finite, far_too_loud]


@pytest.mark.parametrize("misbehave", BAD, ids=lambda one: one.__name__)
def test_engine_that_sends_garbage_costs_nobody_a_sample(place: Place, misbehave: Callable[[FakeJoined], None]) -> None:
    go, bad = threading.Event(), place.join("bad")
    spoken = speak(place, 2, go)
    place.join("good")
    misbehave(bad)
    place.wait_for("moved", lambda found: {one.engine for one in found.streams.values()} == {"glow/good"})
    go.set()
    for one in spoken:
        one.check()
    assert bad.turned_away
    place.wait_for("forgotten", lambda found: names(found) == {"glow/good"})


def test_failures_of_foreign_streams_are_ignored(place: Place) -> None:
    go, bad = threading.Event(), place.join("bad")
    spoken = speak(place, 2, go)
    failures(bad)
    go.set()
    for one in spoken:
        one.check()
    assert not bad.turned_away


def test_engine_that_fails_every_stream_does_not_attract_them(place: Place) -> None:
    bad = place.join("bad")
    bad.fails = "CUDA error"
    client = place.client()
    failed: list[str] = []
    place.join("good", capacity=Capacity(streams=8, measured=True))

    def utterance(stream: str) -> bool:
        client.open(stream, "null")
        engine = client.status().streams[stream].engine
        client.send(wire.mel_message(stream, 0, 0, 0, frames(8)), wire.End(stream, 0, 8))
        while not isinstance(ending := client.next(WAIT_S), wire.Played | wire.Error):
            pass
        if isinstance(ending, wire.Error):
            assert engine == "glow/bad" and "CUDA error" in ending.text
            failed.append(stream)
        return not isinstance(ending, wire.Error)

    done = [utterance(f"s{n}") for n in range(8)]
    assert len(failed) == MAX_FAILURES and sum(done) == 8 - MAX_FAILURES
    streams = place.wait_for("moved", lambda found: {s.engine for s in found.streams.values()} == {"glow/good"}).streams
    assert len(streams) == 8, "those that failed go on where they can be heard"
    assert engine_of(client.status(), bad).failures == MAX_FAILURES
    assert not bad.turned_away, "when all others are full it is tried again"
    client.open("last", "null")
    assert client.status().streams["last"].engine == "glow/bad"
    bad.fails = ""
    client.send(wire.mel_message("last", 0, 0, 0, frames(8)), wire.End("last", 0, 8))
    client.expect(wire.Played)
    assert engine_of(client.status(), bad).failures == 0


def test_streams_of_an_engine_that_is_killed_go_on_in_another(place: Place) -> None:
    go, lost = threading.Event(), place.join("lost")
    spoken = speak(place, 3, go)
    other = place.join("other")
    lost.crash()
    place.wait_for("moved", lambda found: {one.engine for one in found.streams.values()} == {"glow/other"})
    go.set()
    for one in spoken:
        one.check()
    assert all(start.first_frame > 0 and start.attempt == 1 for start in other.starts)


def test_connection_that_is_lost_costs_no_sample(place: Place) -> None:
    """The only engine comes back by another connection, as the same process; meanwhile its streams wait."""
    go, engine = threading.Event(), place.join("one")
    spoken = speak(place, 3, go)
    engine.crash()
    place.wait_for("away", lambda found: not found.voices["glow"].ready)
    again = FakeJoined(place.pool, "one")
    again.instance = engine.instance
    place.engines.append(again)
    place.wait_for("back", lambda found: found.voices["glow"].engines["glow/one"].ready)
    go.set()
    for one in spoken:
        one.check()
    assert len(again.starts) == 3


def test_engine_that_stood_still_comes_back_beside_its_successor(place: Place) -> None:
    go, still = threading.Event(), place.join("one")
    spoken = speak(place, 3, go)
    still.hung.set()
    place.wait_for("lost", lambda found: not found.voices["glow"].ready)
    assert (other := place.join("one")).joined and other.joined.name == "glow/one"
    still.hung.clear()
    until(lambda: still.joined and still.joined.name == "glow/one-2", "that it joins again")
    place.wait_for("both", lambda found: all(one.ready for one in found.voices["glow"].engines.values()))
    go.set()
    for one in spoken:
        one.check()
    assert names(place.client().status()) == {"glow/one", "glow/one-2"}


def test_engine_that_is_lost_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    handle = EngineHandle("glow/one", "glow", lambda _: True)
    handle.handle(ipc.Ready("glow", INFO, 7), [], 0)
    engine = JoinedEngine(handle, 0)
    joined = Joining(create_autospec(Roster), lambda *_: True, dict, lambda *_: None, lambda *_: None, "the gateway")
    engine.route = b"one"
    joined._engines["glow/one"] = joined._by_route[b"one"] = engine
    for second in (1, 10, 11):
        joined.tick(second * 1_000_000_000)
        assert len([text for text in caplog.messages if "engine glow/one is lost" in text]) == (second > 1)


def test_engine_with_other_weights_gets_no_stream_of_another(place: Place) -> None:
    go, first = threading.Event(), place.join("first", digest="a")
    spoken = speak(place, 2, go)
    other = place.join("other", digest="b")
    first.crash()
    place.wait_for("away", lambda found: not engine_of(found, first).ready)
    same = place.join("same", digest="a")
    place.wait_for("moved", lambda found: {one.engine for one in found.streams.values()} == {"glow/same"})
    go.set()
    for one in spoken:
        one.check()
    assert not other.starts and len(same.starts) == 2


def test_engine_that_leaves_is_dismissed_without_streams(place: Place) -> None:
    go, leaving = threading.Event(), place.join("leaving")
    spoken = speak(place, 2, go)
    place.join("stays")
    leaving.leave()
    found = place.wait_for("two engines", lambda found: len(names(found)) == 2)
    assert {one.engine for one in found.streams.values()} == {"glow/leaving"}, "an utterance is not moved"
    go.set()
    for one in spoken:
        one.check()
    until(lambda: leaving.is_dismissed, "the end")
    assert names(place.client().status()) == {"glow/stays"}


def act(place: Place, engine: str, action: str) -> wire.State:
    client = place.client(name="admin")
    client.send(wire.Engine(engine, action))
    found = client.expect(wire.State)
    client.leave()
    return found


def test_cordoned_engine_keeps_its_streams_and_gets_no_new_ones(place: Place) -> None:
    place.join("one")
    client = place.client()
    client.open("first", "null")
    place.join("two")
    found = Snapshot.from_map(act(place, "glow/one", "cordon").info)
    assert found.voices["glow"].engines["glow/one"].placement == "cordoned"
    for number in range(3):
        client.open(f"s{number}", "null")
    assert {name: one.engine for name, one in client.status().streams.items()} == {
        "first": "glow/one", "s0": "glow/two", "s1": "glow/two", "s2": "glow/two",
    }  # fmt: skip
    act(place, "glow/one", "uncordon")
    client.open("last", "null")
    assert client.status().streams["last"].engine == "glow/one"


def test_drained_engine_is_dismissed_after_the_utterance(place: Place) -> None:
    go, old = threading.Event(), place.join("old")
    spoken = speak(place, 2, go)
    place.join("new")
    act(place, "glow/old", "drain")
    found = place.wait_for("two engines", lambda found: len(names(found)) == 2)
    assert {one.engine for one in found.streams.values()} == {"glow/old"} and not old.is_dismissed
    go.set()
    for one in spoken:
        one.check()
    until(lambda: old.is_dismissed, "the end")


def test_next_utterance_of_a_drained_engine_is_elsewhere(place: Place) -> None:
    """Without a pause between two utterances: the second one's frames are sent as soon as there is credit for them."""
    old, client = place.join("old"), place.client()
    client.open("s", "socket", seed=3)
    client.send(*mel_messages("s", frames(8, 1), 4))
    client.expect(wire.Audio)
    new = place.join("new")
    act(place, "glow/old", "drain")
    client.send(wire.End("s", 0, 8))
    client.expect(wire.Played)
    client.send(*mel_messages("s", frames(8, 2), 4, generation=1), wire.End("s", 1, 8))
    client.expect(wire.Played)
    assert [len(engine.starts) for engine in (old, new)] == [1, 1]


def test_engine_that_is_not_there_cannot_be_drained(place: Place) -> None:
    client = place.client()
    client.send(wire.Engine("glow/none", "drain"))
    assert "there is no engine 'glow/none'; engines: none" in client.expect_error(wire.Code.BAD_FIELD).text
