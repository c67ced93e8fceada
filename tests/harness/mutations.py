"""Messages that are almost right: mutations of the real ones in tests/daemon/golden, the same for the same seed.

Rules: bytes only, no socket.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import numpy as np

from glowd.daemon import wire

GOLDEN = Path(__file__).parents[1] / "daemon" / "golden"
OTHERS = ("reports", "telemetry", "telemetry_catch_up", "voices")
"""No messages, but what is in them."""
Parts = list[bytes]
SINKS = ("null", "socket", "file:hostile")
MAX_PARTS = 300
BIG = 1 << 16
VALUES: tuple[Any, ...] = (
    None, True, -1, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "", "x" * 3000, "../x", "\0",
    "*", b"raw", [], [1] * 600, {}, {"type": "hello"}, {str(n): n for n in range(100)}, [[[[[[[[]]]]]]]],
)  # fmt: skip
"""Of the wrong type, or of the right one and not allowed."""
BOMBS: tuple[bytes, ...] = (
    b"\x91" * 8000, b"\x91" * 100_000, b"\x81\xa1a" * 2600, b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff" + b"x" * 100, b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01",
    b"\x81\xa4type\xdb\x7f\xff\xff\xff",
    b"\xdd\x00\x00\x1f\x00" + b"\xc0" * 7936, b"\xde\xff\xff" + b"\xa1a\xc0" * 2000, b"\xdc\xff\xff" + b"\x90" * 8000,
    b"\xc1", b"", b"\x80", b"\x81\xa4type\xc0", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * BIG,
)  # fmt: skip
"""Headers that claim more than they have, nest, or are no header at all."""


@cache
def originals() -> tuple[tuple[bytes, ...], ...]:
    """The parts of a real message of each type, of both sides, and of some streams that can be opened."""
    files = sorted(path for path in GOLDEN.glob("*.hex") if path.stem not in OTHERS)
    golden = [tuple(bytes.fromhex(line) for line in path.read_text().split()) for path in files]
    return (*golden, *(tuple(wire.encode(message)) for sink in SINKS for message in _utterance(sink)))


def _utterance(sink: str) -> Iterator[wire.Message]:
    name = f"hostile-{sink.partition(':')[0]}"
    yield wire.Open(name, sinks=[sink])
    yield wire.mel_message(name, 0, 0, 0, np.full((8, 80), -4, np.float32))
    yield wire.End(name, 0, 8)
    yield wire.Flush(name, 0)
    yield wire.Close(name)


def mutated(seed: int, right: Sequence[tuple[bytes, ...]] = ()) -> Iterator[Parts]:
    """Messages without end, of which hardly any is allowed; none by which an operator would drain the daemon.

    `right`: the parts of those that are changed; empty: those of clients.
    """
    random = Random(seed)
    while True:
        parts = list(random.choice(right or originals()))
        made = random.choice(MUTATIONS)(random, parts)
        if not drains(made):
            yield made


def drains(parts: Parts) -> bool:
    """Whether a message is for operators, and has the daemon refuse streams."""
    with contextlib.suppress(wire.WireError):
        message = wire.decode(parts)
        return isinstance(message, wire.Engine) and message.engine == wire.WHOLE_DAEMON
    return False


def damaged(random: Random, data: bytes) -> bytes:
    """Bytes of which some are changed, missing or added."""
    return random.choice((flipped, cut, lengthened, spliced))(random, data)


def flipped(random: Random, data: bytes) -> bytes:
    """Up to eight bits are the other way round."""
    changed = bytearray(data or b"\0")
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(random: Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: random.randrange(len(data) + 1)]


def lengthened(random: Random, data: bytes) -> bytes:
    """There is more behind it."""
    return data + random.randbytes(random.choice((1, 7, 500, BIG)))


def spliced(random: Random, data: bytes) -> bytes:
    """Something else is in the middle of it."""
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(20)) + data[at + random.randrange(20) :]


def _damage_part(random: Random, parts: Parts) -> Parts:
    at = random.randrange(len(parts))
    return [*parts[:at], damaged(random, parts[at]), *parts[at + 1 :]]


def _wrong_value(random: Random, parts: Parts) -> Parts:
    header = msgpack.unpackb(parts[0])
    header[random.choice(list(header))] = random.choice(VALUES)
    return [msgpack.packb(header), *parts[1:]]


def _wrong_keys(random: Random, parts: Parts) -> Parts:
    header = msgpack.unpackb(parts[0])
    del header[random.choice(list(header))]
    extra = {random.choice(("x", "type", "stream", "y" * 300)): random.choice(VALUES)}
    return [msgpack.packb({**header, **extra}), *parts[1:]]


def _wrong_parts(random: Random, parts: Parts) -> Parts:
    return random.choice(
        (
            parts[:1], parts[::-1], [*parts, b""], [*parts, *parts], [b"", *parts], [parts[0], random.randbytes(BIG)],
            [parts[0]] * MAX_PARTS, [b""] * MAX_PARTS,
        )
    )  # fmt: skip


def _bomb(random: Random, parts: Parts) -> Parts:
    return [random.choice(BOMBS), *parts[1:]]


def _as_it_is(random: Random, parts: Parts) -> Parts:
    return parts


MUTATIONS: tuple[Callable[[Random, Parts], Parts], ...] = (
    _damage_part, _damage_part, _wrong_value, _wrong_value, _wrong_keys, _wrong_parts, _bomb, _as_it_is,
)  # fmt: skip


# ---- JSON, which the web process, Wyoming and the supervisor read

JSON_VALUES: tuple[Any, ...] = (
    None, True, -1, 2**31, 2**63, 10**400, 0.5, float("nan"), float("inf"), -0.0, "", "x" * 3000, "../x", "\0", "\ud800", "*",
    "words that are spoken", [], ["a"] * 600, {}, {"id": "\ud800"}, [[[[[[[[]]]]]]]], {"type": "hello"},
)  # fmt: skip
JSON_BOMBS: tuple[bytes, ...] = (
    b"[" * 4000, b'{"a":' * 800, b"[" * 100_000, b"1" * 5000, b'"\\ud800"', b"\xff\xfe{}", b"NaN", b"", b"null", b"{}", b"[]",
    b"\0", b'"type"', b'{"type": "say", "type": []}',
)  # fmt: skip


def mutated_json(seed: int, maps: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """Texts without end, each on one line, that are almost one of these maps."""
    random = Random(seed)
    while True:
        made = dict(random.choice(maps))
        for _ in range(random.choice((0, 1, 1, 2))):
            made[random.choice((*made, "type", "x"))] = random.choice(JSON_VALUES)
        if random.random() < 0.2:
            del made[random.choice(list(made))]
        data = json.dumps(made).encode()
        kind = random.random()
        data = random.choice(JSON_BOMBS) if kind < 0.1 else damaged(random, data) if kind < 0.3 else data
        yield data.replace(b"\n", b" ")
