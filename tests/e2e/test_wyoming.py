"""A whole daemon with its Wyoming process, spoken to by the package's own client."""

import asyncio

import numpy as np
from wyoming.audio import AudioChunk
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

from tests.harness.daemon import running_daemon
from tests.harness.waiting import WAIT_S


async def speak(port: int) -> tuple[list[str], "np.ndarray[tuple[int], np.dtype[np.int16]]"]:
    """The voices of the service, and the samples of a streamed text."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        said = await client.read_event()
        assert said
        await client.write_event(SynthesizeStart().event())
        for word in ["One", "sentence.", "And", "another", "one."]:
            await client.write_event(SynthesizeChunk(f"{word} ").event())
        await client.write_event(SynthesizeStop().event())
        audio = b""
        while (event := await client.read_event()) and not SynthesizeStopped.is_type(event.type):
            audio += AudioChunk.from_event(event).audio if AudioChunk.is_type(event.type) else b""
        return [voice.name for voice in Info.from_event(said).tts[0].voices], np.frombuffer(audio, "<i2")


def test_home_assistants_client_gets_speech() -> None:
    settings = ("speaker.enabled=false", "wyoming.enabled=true", "wyoming.port=0", "wyoming.tts=hibari")
    with running_daemon(*settings, 'voices={glow={engine="waveglow",max_streams=2}}') as daemon:
        assert daemon.launched.ready
        port = int(daemon.launched.ready.wyoming.rpartition(":")[2])
        voices, samples = asyncio.run(asyncio.wait_for(speak(port), 5 * WAIT_S))
    assert voices == ["glow"]
    assert 1.5 < len(samples) / 22050 < 6 and np.std(samples / 32768) > 0.01
