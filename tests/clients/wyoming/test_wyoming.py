"""The Wyoming service, spoken to by the package's own client, against the fake daemon."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from typing import Any

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeTextFormat,
    SynthesizeVoice,
)

from glowd.clients.upstream import Manner, Speech, UpstreamError
from glowd.clients.wyoming.server import Service, serving
from glowd.daemon import wire
from glowd.flow.mel import Floats, MelFormat
from tests.fakes.daemon import HOP, RATE_HZ, FakeDaemon
from tests.harness.waiting import WAIT_S

FRAMES = 10


class Words:
    """An upstream: ten frames for each word. "fail" cannot be said."""

    name = "words"

    def __init__(self) -> None:
        self.spoken: list[str] = []

    def speak(self, text: str, wanted: MelFormat, manner: Manner = Manner()) -> Speech:
        text.encode()  # as a program is given it
        self.spoken.append(text)
        return Speech(wanted.to_dict(), self._frames(text, wanted.n_mels))

    def _frames(self, text: str, bins: int) -> Generator[Floats, None, None]:
        for word in text.split():
            if word == "fail.":
                raise UpstreamError("this word cannot be said")
            if word != "...":
                yield np.full((FRAMES, bins), -4, np.float32)


class House:
    """A service that runs, and its clients."""

    def __init__(self, port: int, words: Words) -> None:
        self.port, self.words = port, words

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncTcpClient]:
        client = AsyncTcpClient("127.0.0.1", self.port)
        await client.connect()
        try:
            yield client
        finally:
            await client.disconnect()


@pytest.fixture
async def house(fake: FakeDaemon) -> AsyncIterator[House]:
    words = Words()
    service = Service(fake.endpoint, words, ["en", "de"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with serving(service, listening):
            yield House(listening.getsockname()[1], words)


async def next_event(client: AsyncTcpClient) -> Event:
    event = await asyncio.wait_for(client.read_event(), WAIT_S)
    assert event is not None, "the connection was closed"
    return event


async def until_event(client: AsyncTcpClient, kind: Any) -> tuple[list[str], Event]:
    """The types of the events up to one of a kind, and that one."""
    types = list[str]()
    while not kind.is_type((event := await next_event(client)).type):
        types.append(event.type)
    return types, event


async def audio_of(client: AsyncTcpClient) -> "np.ndarray[Any, Any]":
    """The samples up to audio-stop."""
    assert AudioStart.from_event(await next_event(client)).rate == RATE_HZ
    parts = [np.zeros(0, np.int16)]
    while AudioChunk.is_type((event := await next_event(client)).type):
        chunk = AudioChunk.from_event(event)
        assert (chunk.rate, chunk.width, chunk.channels) == (RATE_HZ, 2, 1)
        parts.append(np.frombuffer(chunk.audio, "<i2"))
    assert AudioStop.is_type(event.type)
    return np.concatenate(parts)


def samples(words: int) -> Any:
    """What the fake daemon makes of an utterance."""
    return np.round(np.arange(words * FRAMES * HOP) / 2**20 * 32767)


async def test_describe_says_that_texts_may_stream(house: House) -> None:
    async with house.client() as client:
        await client.write_event(Describe().event())
        info = Info.from_event(await next_event(client))
    (program,) = info.tts
    assert program.supports_synthesize_streaming and program.installed and program.name == "glowd"
    assert [(voice.name, voice.languages) for voice in program.voices] == [("glow", ["en", "de"])]


async def test_text_becomes_the_audio_of_its_sentences(house: House) -> None:
    async with house.client() as client:
        await client.write_event(Synthesize("One two. Three!").event())
        heard = await audio_of(client)
    assert house.words.spoken == ["One two.", "Three!"]
    np.testing.assert_allclose(heard, np.concatenate([samples(2), samples(1)]), atol=1)


async def test_streamed_text_is_spoken_before_it_ends(house: House) -> None:
    async with house.client() as client:
        await client.write_event(SynthesizeStart().event())
        for text in ("One ", "two. Th", "ree"):
            await client.write_event(SynthesizeChunk(text).event())
        types, _ = await until_event(client, AudioChunk)
        assert types == ["audio-start"]
        await client.write_event(Synthesize("One two. Three four.").event())  # for servers that cannot stream
        await client.write_event(SynthesizeChunk(" four.").event())
        await client.write_event(SynthesizeStop().event())
        types, _ = await until_event(client, SynthesizeStopped)
        assert types[-1] == "audio-stop" and types.count("audio-start") == 0
        await client.write_event(Synthesize("Five.").event())
        assert len(await audio_of(client)) == FRAMES * HOP
    assert house.words.spoken == ["One two.", "Three four.", "Five."]


async def test_clients_are_spoken_to_at_once(house: House) -> None:
    async with house.client() as first, house.client() as second:
        await first.write_event(SynthesizeStart().event())
        await first.write_event(SynthesizeChunk("Still being ").event())
        await second.write_event(Synthesize("Done.").event())
        assert len(await audio_of(second)) == FRAMES * HOP
        await first.write_event(SynthesizeChunk("written.").event())
        await first.write_event(SynthesizeStop().event())
        assert len(await audio_of(first)) == 3 * FRAMES * HOP


async def test_other_events_are_no_error(house: House) -> None:
    async with house.client() as client:
        for event in (Event("transcribe"), Event("no-such-event", {"a": 1}, b"x"), SynthesizeChunk("stray").event()):
            await client.write_event(event)
        await client.write_event(SynthesizeStop().event())
        await client.write_event(Ping("here").event())
        assert Pong.from_event(await next_event(client)).text == "here"


@pytest.mark.parametrize("text", ["", "  ", "..."])
async def test_text_without_words_is_answered(house: House, text: str) -> None:
    async with house.client() as client:
        await client.write_event(Synthesize(text).event())
        assert len(await audio_of(client)) == 0


async def test_ssml_is_spoken_without_its_tags(house: House) -> None:
    async with house.client() as client:
        text = "<speak>One <mark name='a'/>two.</speak>"
        await client.write_event(Synthesize(text, text_format=SynthesizeTextFormat.SSML).event())
        assert len(await audio_of(client)) == 2 * FRAMES * HOP
    assert house.words.spoken == ["One two."]


@pytest.mark.parametrize("streams", [False, True])
async def test_fault_is_said_and_the_connection_goes_on(house: House, streams: bool) -> None:
    async with house.client() as client:
        if streams:
            await client.write_event(SynthesizeStart().event())
            await client.write_event(SynthesizeChunk("This will fail. And this is not said.").event())
            await client.write_event(SynthesizeStop().event())
        else:
            await client.write_event(Synthesize("This will fail. And this is not said.").event())
        types, event = await until_event(client, Error)
        # Audio that came before may have been sent already, or is flushed.
        assert (
            set(types) <= {"audio-start", "audio-chunk"} and Error.from_event(event).text == "this word cannot be said"
        )
        types, _ = await until_event(client, SynthesizeStopped if streams else AudioStop)
        assert types == (["audio-stop"] if streams else [])
        await client.write_event(Synthesize("Hello.").event())
        assert len(await audio_of(client)) == FRAMES * HOP


async def test_unknown_voice_is_said(house: House) -> None:
    async with house.client() as client:
        await client.write_event(Synthesize("Hello.", voice=SynthesizeVoice(name="bass")).event())
        _, event = await until_event(client, Error)
        assert "there is no voice bass; ready voices: glow" in Error.from_event(event).text


async def test_client_that_goes_away_is_not_spoken_to(house: House, fake: FakeDaemon) -> None:
    fake.auto = False
    async with house.client() as client:
        await client.write_event(Synthesize("word " * 30).event())
        await until_event(client, AudioChunk)
    await asyncio.to_thread(fake.wait_for, lambda: fake.of_type(wire.Flush) and fake.of_type(wire.Close))


@pytest.mark.parametrize(
    "sent", [b"not json\n", b"[1, 2]\n", b'{"type": "synthesize"}\n', b'{"data_length": 5}\nab', b"\xff\n"]
)
async def test_broken_bytes_end_that_connection_only(house: House, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(sent)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()
    async with house.client() as client:
        await client.write_event(Ping().event())
        assert Pong.is_type((await next_event(client)).type)


async def test_event_that_is_too_large_ends_its_connection(house: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(b'{"type": "synthesize", "data_length": 1048577}\n')
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()


async def test_connections_are_limited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glowd.clients.wyoming.server.MAX_CONNECTIONS", 1)
    async with house.client() as first:
        await first.write_event(Ping().event())
        await next_event(first)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()
        await first.write_event(Ping().event())
        assert Pong.is_type((await next_event(first)).type)


async def test_daemon_that_comes_back_is_used_again(house: House, fake: FakeDaemon) -> None:
    async with house.client() as client:
        await client.write_event(Synthesize("One.").event())
        assert len(await audio_of(client)) == FRAMES * HOP
        fake.stop()
        await client.write_event(Synthesize("Two.").event())
        _, event = await until_event(client, Error)
        assert Error.from_event(event).text
        with FakeDaemon(fake.directory):
            await client.write_event(Synthesize("Three.").event())
            types, _ = await until_event(client, AudioChunk)
            assert "audio-start" in types
