"""A hostile peer: bytes that are no message, messages that are not allowed, streams that are opened and left.

Run as `python -m tests.soak.hostile ENDPOINT`: a process of its own, as the daemon counts peers; it attacks until it is ended.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator

import msgpack
import numpy as np
import zmq

from glowd.clients import transport
from glowd.daemon import wire
from tests.harness.mels import speech

PAUSE_S = 0.2
STREAM = "hostile"


def hello() -> list[bytes]:
    """A message that is allowed: what follows it is looked at."""
    return wire.encode(wire.Hello("hostile", max_version=wire.VERSION))


def noise(chance: random.Random) -> Iterator[list[bytes]]:
    """Bytes at random, alone and in many parts; maps that are deep, wide or of other types."""
    yield [chance.randbytes(chance.randint(0, 5000)) for _ in range(chance.randint(1, 5))]
    yield [
        msgpack.packb({"type": chance.choice(("mel", "open", "audio", "welcome", "")), "stream": chance.randbytes(8)})
    ]
    yield [msgpack.packb({"type": "hello", "client": {"a": [[[[[1]]]]] * 9}})]
    yield [b"\x81" * 4000]


def too_large(_: random.Random) -> Iterator[list[bytes]]:
    """A part beyond what the daemon takes: it closes the connection."""
    yield hello()
    yield [msgpack.packb({"type": "ping"}), bytes(2 << 20)]


def bad_frames(chance: random.Random) -> Iterator[list[bytes]]:
    """A stream whose frames are not finite, out of order, over credit and of another shape, until it is given up."""
    yield hello()
    yield wire.encode(wire.Open(STREAM, sinks=["null"]))
    for seq in range(30):
        values = np.full((chance.choice((1, 4, 600)), chance.choice((80, 79))), chance.choice((np.nan, 1e9, -4.0)))
        head = {
            "type": "mel", "stream": STREAM, "generation": chance.choice((0, 5)), "seq": seq * chance.randint(0, 2),
            "first_frame": chance.choice((0, 4, 1 << 40)), "frames": len(values), "bins": values.shape[1], "dtype": "f32",
        }  # fmt: skip
        yield [msgpack.packb(head), values.astype("<f4").tobytes()]


def left_alone(_: random.Random) -> Iterator[list[bytes]]:
    """Speaks at full credit to all that is to be had, and goes without a word."""
    yield hello()
    yield wire.encode(wire.Listen("*"))
    yield wire.encode(wire.Open(STREAM, sinks=["null"]))
    mel = speech()[:64]
    yield wire.encode(wire.Mel(STREAM, 0, 0, 0, len(mel), "f32", mel.shape[1], 0, mel))


def of_others(chance: random.Random) -> Iterator[list[bytes]]:
    """Ends and closes streams that it does not own. To flush, hold or turn them up is allowed, so it does not."""
    yield hello()
    for number in range(10):
        name = f"glow.{chance.choice((0, 7))}.{number}.{chance.randint(0, 9)}"
        for message in (wire.End(name, 0, 10), wire.Close(name)):
            yield wire.encode(message)


ATTACKS: tuple[Callable[[random.Random], Iterator[list[bytes]]], ...] = (
    noise, too_large, bad_frames, left_alone, of_others,
)  # fmt: skip


def attack(endpoint: str, chance: random.Random) -> None:
    """One attack over a connection of its own, of which nothing is read."""
    context = zmq.Context()
    try:
        dealer = context.socket(zmq.DEALER)
        transport.connect(dealer, transport.address_to(endpoint), ipv6=False)
        for parts in chance.choice(ATTACKS)(chance):
            if not dealer.poll(1000, zmq.POLLOUT):
                return
            dealer.send_multipart(parts, zmq.NOBLOCK)
        time.sleep(PAUSE_S)
    finally:
        context.destroy(linger=0)


def main(endpoint: str) -> None:
    """Without end. It takes no part in any real-time priority of its parent: it floods."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    chance = random.Random(0)
    while True:
        attack(endpoint, chance)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1])
