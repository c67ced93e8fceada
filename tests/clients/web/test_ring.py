"""Audio that waits for a page: bounded in seconds, in order, and honest about what was dropped."""

import asyncio

import numpy as np

from glowd.clients.web.ring import LEAST_S, PIECE_S, Ring, pieces_of
from glowd.daemon import wire
from glowd.daemon.wire.codec import to_s16

RATE = 1000


def audio(samples: int, first: int = 0, generation: int = 0, last: bool = False, gap: bool = False) -> wire.Audio:
    payload = (np.arange(first, first + samples) % 2000 / np.float32(4000)).astype(np.float32)
    return wire.Audio("s", generation, 0, first, samples, rate_hz=RATE, last=last, gap=gap, payload=payload)


async def taken(ring: Ring, pieces: int) -> list[tuple[int, int, bool, bool]]:
    found = [await ring.take() for _ in range(pieces)]
    return [(piece.first_sample, piece.samples, piece.last, piece.gap) for piece in found]


def test_long_message_is_cut_without_losing_a_sample() -> None:
    message = audio(1030, first=70, last=True, gap=True)
    pieces = pieces_of(message)
    assert [piece.first_sample for piece in pieces] == [70, 320, 570, 820, 1070]
    assert all(piece.samples <= PIECE_S * RATE for piece in pieces)
    assert b"".join(piece.data for piece in pieces) == to_s16(message.payload).tobytes()
    assert [piece.last for piece in pieces] == [False, False, False, False, True]
    assert [piece.gap for piece in pieces] == [True, False, False, False, False]


def test_message_without_samples_keeps_its_end() -> None:
    (piece,) = pieces_of(audio(0, first=9, last=True))
    assert (piece.samples, piece.first_sample, piece.last) == (0, 9, True)


async def test_full_ring_drops_the_oldest_and_says_so() -> None:
    ring = Ring(1.0)
    for first in range(0, 3000, 100):
        ring.put(audio(100, first))
        assert ring.seconds <= 1.0 + 1e-9
    assert ring.dropped_samples == 2000
    assert await taken(ring, 2) == [(2000, 100, False, True), (2100, 100, False, False)]


async def test_pieces_without_samples_are_bounded_too() -> None:
    ring = Ring(1.0)
    for _ in range(10_000):
        ring.put(audio(0))
    assert ring.seconds <= 1.0 + 1e-9 and len(ring._pieces) <= 1 / LEAST_S + 1


async def test_discard_drops_a_generation_and_keeps_the_next() -> None:
    ring = Ring(9.0)
    for generation in range(3):
        ring.put(audio(10, generation=generation))
    ring.discard(1)
    assert (await ring.take()).generation == 2 and ring.seconds == 0.0


async def test_take_waits_for_what_is_put() -> None:
    ring = Ring(9.0)
    waiting = asyncio.create_task(taken(ring, 3))
    await asyncio.sleep(0)
    ring.put(audio(500))
    await asyncio.sleep(0)
    ring.put(audio(10, 500))
    assert await waiting == [(0, 250, False, False), (250, 250, False, False), (500, 10, False, False)]
