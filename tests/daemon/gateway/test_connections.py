"""What waits for a client, and what a listener that reads slowly still hears."""

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.connections import LISTENER_BUFFER_S, MAX_OUTBOX, MAX_OUTBOX_BYTES, PROBE_NS, Feed, Peer
from glowd.daemon.wire.fields import Message

RATE = 1000


class Transport:
    """Takes `room` messages, then none; `there` False: the peer is gone."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room, self.there = room, True
        self.took: list[Message] = []

    def __call__(self, identity: bytes, parts: list[bytes]) -> bool | None:
        if not self.there:
            return None
        if not self.room:
            return False
        self.room -= 1
        self.took.append(wire.decode(parts, wire.CLIENT_LIMITS))
        return True


def peer(transport: Transport, *listening: str) -> Peer:
    one = Peer(b"id", "test", 0, transport)
    one.listening.update(listening)
    return one


def piece(index: int, generation: int = 0, samples: int = 100, last: bool = False) -> wire.Audio:
    return wire.Audio("s", generation, 0, index * samples, samples, "f32", RATE, last, False, {}, np.zeros(samples))  # type: ignore[arg-type]


def heard(transport: Transport) -> list[tuple[int, int, int, bool]]:
    return [(m.generation, m.seq, m.first_sample, m.gap) for m in transport.took if isinstance(m, wire.Audio)]


def test_words_wait_in_order_and_audio_does_not_overtake_them() -> None:
    transport = Transport(room=1)
    one = peer(transport)
    for t_ns in range(4):
        one.send(wire.Pong(t_ns, 0))
    assert not one.try_send(piece(0)), "what waits comes first"
    transport.room = 10
    one.pump()
    assert [message.t_client_ns for message in transport.took if isinstance(message, wire.Pong)] == [0, 1, 2, 3]
    assert one.try_send(piece(0)) and not one.gone


@pytest.mark.parametrize("message", [wire.Pong(1, 1), wire.State("", "ready", {"text": "x" * 60_000})])
def test_a_client_that_never_reads_is_given_up_before_it_costs_much(message: Message) -> None:
    one = peer(Transport(room=0))
    size = len(wire.encode(message)[0])
    for _ in range(MAX_OUTBOX):
        one.send(message)
        if one.gone:
            break
    else:
        one.send(message)
    assert "reads too slowly" in one.gone
    assert one._outbox_bytes <= MAX_OUTBOX_BYTES + size


def test_a_client_whose_connection_is_gone_is_known() -> None:
    transport = Transport()
    one = peer(transport)
    transport.there = False
    one.send(wire.Pong(1, 1))
    assert one.gone == "its connection is gone"
    assert not one.try_send(piece(0))


def test_a_silent_client_is_probed_now_and_then_and_found_gone() -> None:
    transport = Transport()
    one = peer(transport)
    for now_ns in range(0, 3 * PROBE_NS, PROBE_NS // 10):
        one.probe(now_ns)
    assert [type(message) for message in transport.took] == [wire.Pong, wire.Pong]
    one.heard_ns = 3 * PROBE_NS
    one.probe(4 * PROBE_NS)
    assert len(transport.took) == 2, "one that speaks is not asked"
    transport.there = False
    one.probe(4 * PROBE_NS + 1)
    assert one.gone


@pytest.mark.parametrize("listening", ["s", "*"])
def test_a_listener_hears_every_piece_in_time(listening: str) -> None:
    transport = Transport()
    one = peer(transport, listening)
    for index in range(3):
        one.hear("s", piece(index))
    one.hear("s", wire.Played("s", 0, 300, 0))
    one.hear("s", piece(0, generation=1))
    assert heard(transport) == [(0, 0, 0, False), (0, 1, 100, False), (0, 2, 200, False), (1, 0, 0, False)]
    assert isinstance(transport.took[3], wire.Played)


def test_one_who_does_not_listen_hears_nothing() -> None:
    transport = Transport()
    one = peer(transport, "other")
    one.hear("s", piece(0))
    one.listening.add("s")
    one.hear("s", piece(1))
    one.unlisten("s")
    one.hear("s", piece(2))
    assert heard(transport) == [(0, 0, 100, False)], "joined late is no gap"
    assert one.feeds == {}


def test_a_slow_listener_loses_the_oldest_and_is_told() -> None:
    transport = Transport(room=1)
    one = peer(transport, "s")
    kept = int(LISTENER_BUFFER_S * RATE) // 100
    for index in range(1 + kept + 7):
        one.hear("s", piece(index))
    feed = one.feeds["s"]
    assert feed.dropped_samples == 700
    transport.room = 1000
    one.pump()
    assert heard(transport)[1:3] == [(0, 1, 800, True), (0, 2, 900, False)]
    assert len(heard(transport)) == 1 + kept


def test_the_ending_comes_after_the_audio_that_waits() -> None:
    transport = Transport(room=0)
    one = peer(transport, "s")
    one.hear("s", piece(0))
    one.hear("s", piece(1, last=True))
    one.hear("s", wire.Played("s", 0, 200, 0))
    one.stream_closed("s")
    transport.room = 10
    one.pump()
    assert [message.TYPE for message in transport.took] == ["audio", "audio", "played"]
    assert one.feeds == {}, "a stream that is closed and heard is forgotten"


@pytest.mark.parametrize("ending", [wire.Flushed("s", 0, 99, 100), wire.Error(500, "INTERNAL", "", "s", 0, fatal=True)])
def test_what_was_flushed_is_not_heard_after_it(ending: Message) -> None:
    transport = Transport(room=1)
    one = peer(transport, "s")
    for index in range(3):
        one.hear("s", piece(index))
    one.hear("s", ending)
    one.hear("s", piece(0, generation=1))
    transport.room = 10
    one.pump()
    assert [message.TYPE for message in transport.took] == ["audio", ending.TYPE, "audio"]
    assert heard(transport)[-1] == (1, 0, 0, False), "the next generation has lost nothing"


def test_a_stream_of_the_same_name_is_numbered_anew() -> None:
    transport, feed = Transport(), Feed()
    one = peer(transport)
    feed.offer(piece(0), one.try_send)
    feed.over = True
    feed.offer(piece(0), one.try_send)
    assert heard(transport) == [(0, 0, 0, False), (0, 0, 0, False)]


def test_an_utterance_whose_beginning_was_lost_begins_with_a_gap() -> None:
    transport = Transport(room=1)
    one = peer(transport, "s")
    one.hear("s", piece(0))
    kept = int(LISTENER_BUFFER_S * RATE) // 100
    for index in range(kept + 2):
        one.hear("s", piece(index, generation=1))
    transport.room = 1000
    one.pump()
    assert heard(transport)[1:3] == [(1, 0, 200, True), (1, 1, 300, False)]


def test_audio_does_not_overtake_words_when_the_way_is_free_again() -> None:
    transport = Transport(room=0)
    one = peer(transport)
    one.send(wire.Pong(1, 0))
    transport.room = 10
    assert not one.try_send(piece(0))
    one.pump()
    assert one.try_send(piece(0))
    assert [message.TYPE for message in transport.took] == ["pong", "audio"]


def test_a_beginning_lost_together_with_the_utterance_before_is_a_gap_too() -> None:
    transport = Transport(room=0)
    one = peer(transport, "s")
    one.hear("s", piece(0))
    one.hear("s", piece(0, generation=1))
    one.hear("s", piece(1, generation=1, samples=int(LISTENER_BUFFER_S * RATE)))
    transport.room = 1
    one.pump()
    assert heard(transport) == [(1, 0, int(LISTENER_BUFFER_S * RATE), True)]
