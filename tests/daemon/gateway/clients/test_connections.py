"""What waits for a client, and what a slow listener still receives."""

import numpy as np
import pytest

from glowd.daemon import wire
from glowd.daemon.gateway.clients.connections import (
    LISTENER_BUFFER_S,
    MAX_OUTBOX,
    MAX_OUTBOX_BYTES,
    PROBE_NS,
    ClientConnection,
    ListenerQueue,
)
from glowd.daemon.gateway.streams.audio_format import AudioFormat
from glowd.daemon.wire.fields import Message

RATE = 1000


class Transport:
    """Takes `room` messages, then none."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.sent: list[Message] = []

    def __call__(self, identity: bytes, parts: list[bytes]) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.sent.append(wire.decode(parts, wire.CLIENT_LIMITS))
        return True


def client(transport: Transport, *listening: str) -> ClientConnection:
    one = ClientConnection(b"id", "test", 0, transport)
    one.listening.update(dict.fromkeys(listening, AudioFormat()))
    return one


def chunk(index: int, generation: int = 0, samples: int = 100, last: bool = False) -> wire.Audio:
    return wire.Audio("s", generation, 0, index * samples, samples, "f32", RATE, last, False, {}, np.zeros(samples))  # type: ignore[arg-type]


def audio_sent(transport: Transport) -> list[tuple[int, int, int, bool]]:
    return [(m.generation, m.seq, m.first_sample, m.gap) for m in transport.sent if isinstance(m, wire.Audio)]


def test_outbox_keeps_order_and_audio_waits_behind_it() -> None:
    transport = Transport(room=1)
    one = client(transport)
    for t_ns in range(4):
        one.send(wire.Pong(t_ns, 0))
    assert not one.try_send(chunk(0)), "what waits comes first"
    transport.room = 10
    one.pump()
    assert [message.t_client_ns for message in transport.sent if isinstance(message, wire.Pong)] == [0, 1, 2, 3]
    assert one.try_send(chunk(0)) and not one.lost


@pytest.mark.parametrize("message", [wire.Pong(1, 1), wire.State("", "ready", {"text": "x" * 60_000})])
def test_full_outbox_marks_client_lost(message: Message) -> None:
    one = client(Transport(room=0))
    size = len(wire.encode(message)[0])
    for _ in range(MAX_OUTBOX):
        one.send(message)
        if one.lost:
            break
    else:
        one.send(message)
    assert "reads too slowly" in one.lost
    assert one._outbox_bytes <= MAX_OUTBOX_BYTES + size


def test_client_that_is_gone_is_sent_nothing() -> None:
    transport = Transport()
    one = client(transport)
    one.gone()
    one.send(wire.Pong(1, 1))
    assert one.lost == "its connection is gone"
    assert not one.try_send(chunk(0)) and not transport.sent


def test_silent_client_is_probed() -> None:
    transport = Transport()
    one = client(transport)
    for now_ns in range(0, 3 * PROBE_NS, PROBE_NS // 10):
        one.probe(now_ns)
    assert [type(message) for message in transport.sent] == [wire.Pong, wire.Pong]
    one.last_seen_ns = 3 * PROBE_NS
    one.probe(4 * PROBE_NS)
    assert len(transport.sent) == 2, "a client that sends is not probed"


@pytest.mark.parametrize("listening", ["s", "*"])
def test_listener_gets_every_chunk(listening: str) -> None:
    transport = Transport()
    one = client(transport, listening)
    for index in range(3):
        one.offer("s", chunk(index))
    one.offer("s", wire.Played("s", 0, 300, 0))
    one.offer("s", chunk(0, generation=1))
    assert audio_sent(transport) == [(0, 0, 0, False), (0, 1, 100, False), (0, 2, 200, False), (1, 0, 0, False)]
    assert isinstance(transport.sent[3], wire.Played)


def test_client_not_listening_gets_nothing() -> None:
    transport = Transport()
    one = client(transport, "other")
    one.offer("s", chunk(0))
    one.listen("s")
    one.offer("s", chunk(1))
    one.unlisten("s")
    one.offer("s", chunk(2))
    assert audio_sent(transport) == [(0, 0, 100, False)], "joined late is no gap"
    assert one.queues == {}


def test_slow_listener_loses_oldest_audio_and_sees_gap() -> None:
    transport = Transport(room=1)
    one = client(transport, "s")
    kept = int(LISTENER_BUFFER_S * RATE) // 100
    for index in range(1 + kept + 7):
        one.offer("s", chunk(index))
    queue = one.queues["s"]
    assert queue.dropped_samples == 700
    transport.room = 1000
    one.pump()
    assert audio_sent(transport)[1:3] == [(0, 1, 800, True), (0, 2, 900, False)]
    assert len(audio_sent(transport)) == 1 + kept


def test_ending_follows_waiting_audio() -> None:
    transport = Transport(room=0)
    one = client(transport, "s")
    one.offer("s", chunk(0))
    one.offer("s", chunk(1, last=True))
    one.offer("s", wire.Played("s", 0, 200, 0))
    one.stream_closed("s")
    transport.room = 10
    one.pump()
    assert [message.TYPE for message in transport.sent] == ["audio", "audio", "played"]
    assert one.queues == {}, "nothing is kept of a closed stream that was read"


@pytest.mark.parametrize("ending", [wire.Flushed("s", 0, 99, 100), wire.Error(500, "INTERNAL", "", "s", 0, fatal=True)])
def test_no_audio_follows_its_flushed(ending: Message) -> None:
    transport = Transport(room=1)
    one = client(transport, "s")
    for index in range(3):
        one.offer("s", chunk(index))
    one.offer("s", ending)
    one.offer("s", chunk(0, generation=1))
    transport.room = 10
    one.pump()
    assert [message.TYPE for message in transport.sent] == ["audio", ending.TYPE, "audio"]
    assert audio_sent(transport)[-1] == (1, 0, 0, False), "the next generation has lost nothing"


def test_reopened_stream_is_numbered_from_zero() -> None:
    transport, queue = Transport(), ListenerQueue(AudioFormat())
    one = client(transport)
    queue.offer(chunk(0), one.try_send)
    queue.is_closed = True
    queue.offer(chunk(0), one.try_send)
    assert audio_sent(transport) == [(0, 0, 0, False), (0, 0, 0, False)]


def test_utterance_with_lost_start_begins_with_gap() -> None:
    transport = Transport(room=1)
    one = client(transport, "s")
    one.offer("s", chunk(0))
    kept = int(LISTENER_BUFFER_S * RATE) // 100
    for index in range(kept + 2):
        one.offer("s", chunk(index, generation=1))
    transport.room = 1000
    one.pump()
    assert audio_sent(transport)[1:3] == [(1, 0, 200, True), (1, 1, 300, False)]


def test_audio_waits_until_outbox_is_empty() -> None:
    transport = Transport(room=0)
    one = client(transport)
    one.send(wire.Pong(1, 0))
    transport.room = 10
    assert not one.try_send(chunk(0))
    one.pump()
    assert one.try_send(chunk(0))
    assert [message.TYPE for message in transport.sent] == ["pong", "audio"]


def test_start_lost_with_previous_utterance_is_a_gap() -> None:
    transport = Transport(room=0)
    one = client(transport, "s")
    one.offer("s", chunk(0))
    one.offer("s", chunk(0, generation=1))
    one.offer("s", chunk(1, generation=1, samples=int(LISTENER_BUFFER_S * RATE)))
    transport.room = 1
    one.pump()
    assert audio_sent(transport) == [(1, 0, int(LISTENER_BUFFER_S * RATE), True)]
