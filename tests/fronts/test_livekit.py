"""LiveKit Agents speaks through glowd; a request that is closed stops the daemon."""

import asyncio
import time

import numpy as np
import pytest
from livekit.agents import APIConnectOptions, APIStatusError

from glowd.clients.plugins.livekit import TTS
from tests.fronts.conftest import Streams

TEXT = "The agent speaks through the daemon."
ONCE = APIConnectOptions(max_retry=0)


async def test_livekit_text_becomes_audio(endpoint: str) -> None:
    async with TTS(endpoint=endpoint, tts="espeak-ng") as speaker:
        frame = await speaker.synthesize(TEXT).collect()
    samples = np.frombuffer(frame.data, "<i2")
    assert (frame.sample_rate, frame.num_channels) == (24_000, 1)
    assert 1.0 < len(samples) / 24_000 < 5 and np.abs(samples).max() > 1000


async def test_livekit_request_that_is_closed_stops_its_stream(endpoint: str, streams: Streams) -> None:
    async with TTS(endpoint=endpoint, tts="espeak-ng") as speaker:
        async with speaker.synthesize(" ".join([TEXT] * 200)) as request:
            first = await anext(aiter(request))
            assert first.frame.sample_rate == 24_000
        until_s = time.monotonic() + 60
        while await asyncio.to_thread(streams.count):
            assert time.monotonic() < until_s, "the stream goes on"
            await asyncio.sleep(0.01)


async def test_livekit_voice_that_is_missing_is_an_error(endpoint: str) -> None:
    async with TTS(endpoint=endpoint, voice="nobody", tts="espeak-ng") as speaker:
        with pytest.raises(APIStatusError, match="nobody"):
            await speaker.synthesize(TEXT, conn_options=ONCE).collect()
