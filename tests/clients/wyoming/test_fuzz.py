"""The Wyoming service, whatever bytes come: an answer or the end of the connection, and others go on."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from random import Random
from typing import Any

import pytest
from wyoming.ping import Ping, Pong

from tests.clients.wyoming.test_wyoming import House, house  # noqa: F401 (a fixture)
from tests.harness.mutations import JSON_VALUES, damaged, mutated_json
from tests.harness.waiting import WAIT_S

EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "describe"}, {"type": "ping", "data": {"text": "x"}}, {"type": "synthesize", "data": {"text": "ten words."}},
    {"type": "synthesize", "data": {"text": "<speak>ten</speak>", "text_format": "ssml", "voice": {"name": "glow"}}},
    {"type": "synthesize-start", "data": {"voice": {"name": "glow"}}},
    {"type": "synthesize-chunk", "data": {"text": "ten words."}},
    {"type": "synthesize-stop"}, {"type": "synthesize", "data_length": 5, "payload_length": 3},
    {"type": "audio-chunk", "data": {}},
)  # fmt: skip
VALUES: tuple[Any, ...] = (*JSON_VALUES, {"name": "../x"}, {"name": 5})


def lines(seed: int) -> Iterator[bytes]:
    """Events that are almost right, on lines."""
    random, texts = Random(seed), mutated_json(seed, EVENTS)
    while True:
        event = json.loads(json.dumps(random.choice(EVENTS)))
        if random.random() < 0.5 and "data" in event:
            event["data"][random.choice(("text", "voice", "text_format"))] = random.choice(
                (*JSON_VALUES, {"name": "../x"}, {"name": 5})
            )
            yield json.dumps(event).encode()
        else:
            yield next(texts) if random.random() < 0.7 else damaged(random, json.dumps(event).encode())


END = (b'{"type": "synthesize-stop"}', b'{"type": "synthesize", "data": {"text": "LAST"}}')


async def is_ended(reader: asyncio.StreamReader, is_served: Callable[[], bool]) -> bool:
    """Whether the connection ends before the last request is served; one of the two must come."""
    while not is_served():
        if not await asyncio.wait_for(reader.read(1 << 16), WAIT_S / 4):
            return True
    return False


async def is_alive(place: House) -> bool:
    async with place.client() as client:
        await client.write_event(Ping(text="here").event())
        answer = await asyncio.wait_for(client.read_event(), WAIT_S)
        return answer is not None and Pong.from_event(answer).text == "here"


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_event_is_answered_or_ends_its_connection(
    house: House,  # noqa: F811
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    texts = lines(seed)
    ends = 0
    for number in range(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        last = f"end {number}."
        for text in (*islice(texts, 5), *END):
            writer.write(text.replace(b"LAST", last.encode()) + b"\n")
        ends += await is_ended(reader, partial(house.words.spoken.__contains__, last))
        writer.close()
    assert 0 < ends < 60
    assert await is_alive(house)
    assert not [record for record in caplog.records if record.exc_info], caplog.text
