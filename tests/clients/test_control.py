"""A client stops, holds and sets the volume of another client's stream, and learns what is refused."""

import asyncio
from collections.abc import Iterator

import pytest

from glowd.clients import AsyncClient, Client, errors
from glowd.daemon import wire
from glowd.daemon.wire import Code
from tests.fakes.daemon import FakeDaemon

ASKED = [wire.Pause("s"), wire.Gain("s", -6.0), wire.Resume("s"), wire.Flush("s", 0, 30)]


@pytest.fixture
def speaking(fake: FakeDaemon) -> Iterator[None]:
    """Another client has opened the stream `s`."""
    with Client(fake.endpoint) as other:
        other.open("s")
        yield


def asked(fake: FakeDaemon) -> list[wire.Message]:
    kinds = (wire.Pause, wire.Resume, wire.Gain, wire.Flush)
    return [message for message in fake.received if isinstance(message, kinds)]


def test_stream_of_another_client_is_controlled(fake: FakeDaemon, speaking: None) -> None:
    with Client(fake.endpoint) as client:
        stream = client.control("s")
        stream.pause()
        stream.gain(-6)
        stream.resume()
        stream.flush(fade_ms=30)
        assert asked(fake) == ASKED, "each was read when its method returned"


def test_asyncio_client_controls_it_as_well(fake: FakeDaemon, speaking: None) -> None:
    async def run() -> None:
        async with AsyncClient(fake.endpoint) as client:
            stream = client.control("s")
            await stream.pause()
            await stream.gain(-6)
            await stream.resume()
            await stream.flush(fade_ms=30)
            with pytest.raises(errors.GlowdError, match="there is no stream 'nobody'"):
                await client.control("nobody").pause()

    asyncio.run(run())
    assert asked(fake)[:4] == ASKED


@pytest.mark.parametrize("action", ["pause", "resume", "flush"])
def test_refusal_is_raised_and_the_client_goes_on(fake: FakeDaemon, speaking: None, action: str) -> None:
    with Client(fake.endpoint) as client:
        with pytest.raises(errors.GlowdError, match="there is no stream 'nobody'") as raised:
            getattr(client.control("nobody"), action)()
        assert raised.value.code == Code.UNKNOWN_STREAM
        client.control("s").pause()
        assert client.ping() > 0
