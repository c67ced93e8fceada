"""The registry: one record for each open stream, found by name, by key, by owner and by engine."""

import gc
import weakref

import pytest

from glowd.daemon import ipc, wire
from glowd.daemon.config import FileSettings
from glowd.daemon.gateway.clients.connections import ClientConnection
from glowd.daemon.gateway.handles.engine import EngineHandle
from glowd.daemon.gateway.handles.speaker import SpeakerHandle
from glowd.daemon.gateway.placement.registry import Stream, StreamRegistry
from glowd.daemon.gateway.streams.file_sink import Recordings
from glowd.daemon.gateway.streams.session import Session
from glowd.daemon.wire.fields import Message
from tests.harness.router import decoded_into
from tests.harness.session import LIMITS, RATE, mel_message, plain_intake


class RegistryHarness:
    """A registry with two engines and two clients, and what each was sent."""

    def __init__(self) -> None:
        self.mail: dict[bytes, list[Message]] = {b"a": [], b"b": []}
        self.clients = {who: ClientConnection(who, who.decode(), 0, self._try_send) for who in self.mail}
        self.to_engine: dict[str, list[Message]] = {"glow/0": [], "glow/1": []}
        self.engines = {name: EngineHandle(name, "glow", decoded_into(at), 15) for name, at in self.to_engine.items()}
        self.registry = StreamRegistry(
            self.clients,
            SpeakerHandle(list[Message]().append, True, 15),
            Recordings(FileSettings(directory="/nowhere")),
        )

    def _try_send(self, identity: bytes, parts: list[bytes]) -> bool:
        self.mail[identity].append(wire.decode(parts, wire.CLIENT_LIMITS))
        return True

    def place(self, name: str, owner: bytes = b"a", engine: str = "glow/0") -> Stream:
        return self.registry.place(
            name,
            self.clients[owner],
            self.engines[engine],
            lambda ports: Session(wire.Open(name, sinks=["socket"]), "glow", RATE, 0, LIMITS, ports, plain_intake()),
        )


@pytest.fixture
def harness() -> RegistryHarness:
    return RegistryHarness()


def test_placed_stream_is_found_in_every_way(harness: RegistryHarness) -> None:
    stream, other = harness.place("s"), harness.place("t", b"b", "glow/1")
    registry = harness.registry
    assert registry.find("s") is registry.find_key(stream.key) is stream and len(registry) == 2
    assert registry.owned_by(harness.clients[b"a"]) == [stream]
    assert registry.placed_in(harness.engines["glow/1"]) == [other]
    assert registry.counts() == {"glow/0": 1, "glow/1": 1}


def test_find_own_ignores_streams_of_others(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    assert harness.registry.find_own(harness.clients[b"a"], "s") is stream
    assert harness.registry.find_own(harness.clients[b"b"], "s") is None


def test_rekey_makes_the_last_key_invalid(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    old = stream.key
    harness.registry.rekey(stream)
    assert harness.registry.find_key(old) is None and harness.registry.find_key(stream.key) is stream
    assert harness.registry.keys == {stream.key}


def test_next_utterance_has_the_key_of_the_record(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    stream.session.client.flush(wire.Flush("s", 0))
    assert stream.session.state.utterance.number == 1
    assert stream.session.state.utterance.key == stream.key


def test_move_drops_from_the_old_engine_and_resumes_in_the_new(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    stream.session.client.mel(mel_message(0, 0, 4), 1)
    harness.to_engine["glow/0"].clear()
    harness.registry.move(stream, harness.engines["glow/1"])
    assert harness.to_engine["glow/0"] == [ipc.Drop(stream.key)]
    start, frames = harness.to_engine["glow/1"]
    assert start == ipc.Start(stream.key, 0, 0, -1.0, attempt=1) and isinstance(frames, ipc.Frames)


def test_move_changes_the_engine_for_the_whole_session(harness: RegistryHarness) -> None:
    """No part of a session keeps the engine it had before."""
    stream = harness.place("s")
    harness.registry.move(stream, harness.engines["glow/1"])
    stream.session.client.mel(mel_message(0, 0, 4), 1)
    stream.session.client.end(wire.End("s", 0, 4), 2)
    stream.session.client.flush(wire.Flush("s", 0))
    assert [type(message) for message in harness.to_engine["glow/1"]] == [ipc.Start, ipc.Frames, ipc.Finish, ipc.Drop]
    assert harness.to_engine["glow/0"] == []


def test_close_leaves_nothing_of_the_stream(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    session = stream.session
    session.client.mel(mel_message(0, 0, 4), 1)
    harness.registry.close(stream)
    registry = harness.registry
    assert len(registry) == 0 and registry.keys == set() and registry.counts() == {}
    assert harness.to_engine["glow/0"][-1] == ipc.Drop(stream.key)
    assert session.state.state == "closed"


def test_closed_stream_needs_no_garbage_collection(harness: RegistryHarness) -> None:
    """The gateway collects garbage rarely, and a stream keeps frames and samples."""
    gc.collect()
    gc.disable()
    try:
        kept = weakref.ref(harness.place("t").session)
        stream = harness.registry.find("t")
        assert stream
        harness.registry.close(stream)
        assert kept() is None
    finally:
        gc.enable()


def test_streams_may_be_closed_while_iterating(harness: RegistryHarness) -> None:
    for name in "stu":
        harness.place(name)
    for stream in harness.registry:
        harness.registry.close(stream)
    assert len(harness.registry) == 0


def test_broadcast_reaches_listeners_but_not_the_owner(harness: RegistryHarness) -> None:
    stream = harness.place("s")
    for client in harness.clients.values():
        harness.registry.listen(client, "*")
    ending = wire.Played("s", 0, 4, 0)
    harness.registry.broadcast(stream, ending)
    assert harness.mail == {b"a": [], b"b": [ending]}


def test_chunks_are_offered_only_while_somebody_listens(harness: RegistryHarness) -> None:
    stream, registry, (one, two) = harness.place("s"), harness.registry, harness.clients.values()
    found = [stream.has_listeners]
    for change in (
        lambda: registry.listen(two, "s"),
        lambda: registry.listen(two, "t"),
        lambda: registry.unlisten(two, "s"),
        lambda: registry.unlisten(two, "t"),
        lambda: registry.listen(one, "*"),
        lambda: registry.forget(one),
    ):
        change()
        found.append(stream.has_listeners)
    assert found == [False, True, True, True, False, True, False]
    assert len(registry) == 0, "the streams of a client that is gone are closed"
