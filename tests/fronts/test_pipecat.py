"""Pipecat speaks through glowd in a pipeline of its own; an interruption stops the daemon."""

import asyncio

import numpy as np
from pipecat.frames.frames import ErrorFrame, InterruptionFrame, TTSAudioRawFrame, TTSSpeakFrame, TTSStoppedFrame
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test

from glowd.clients.plugins.pipecat import GlowTTSService
from tests.fronts.conftest import Streams

TEXT = "Pipecat speaks through the daemon."
PARAMS = PipelineParams(audio_out_sample_rate=16_000)


def audio_of(frames: list[object]) -> list[TTSAudioRawFrame]:
    return [frame for frame in frames if isinstance(frame, TTSAudioRawFrame)]


async def test_pipecat_text_becomes_audio_frames(endpoint: str) -> None:
    service = GlowTTSService(endpoint=endpoint, tts="espeak-ng")
    sent = [TTSSpeakFrame(TEXT), SleepFrame(sleep=3.0)]
    down, up = await run_test(service, frames_to_send=sent, pipeline_params=PARAMS, start_timeout=60)
    audio = audio_of(list(down))
    samples = np.concatenate([np.frombuffer(frame.audio, "<i2") for frame in audio])
    assert {frame.sample_rate for frame in audio} == {16_000} and not [f for f in up if isinstance(f, ErrorFrame)]
    assert 1.0 < len(samples) / 16_000 < 5 and np.abs(samples).max() > 1000
    assert any(isinstance(frame, TTSStoppedFrame) for frame in down)


async def test_pipecat_interruption_stops_the_stream(endpoint: str, streams: Streams) -> None:
    service = GlowTTSService(endpoint=endpoint, tts="espeak-ng")
    counts: list[int] = []

    async def watch() -> None:
        while True:
            counts.append(await asyncio.to_thread(streams.count))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    sent = [TTSSpeakFrame(" ".join([TEXT] * 200)), SleepFrame(sleep=1.0), InterruptionFrame(), SleepFrame(sleep=1.0)]
    down, _ = await run_test(service, frames_to_send=sent, pipeline_params=PARAMS, start_timeout=60)
    watching.cancel()
    seconds = sum(len(frame.audio) for frame in audio_of(list(down))) / 2 / 16_000
    assert 1 in counts and counts[-1] == 0
    assert seconds < 200  # of about 400


async def test_pipecat_voice_that_is_missing_is_an_error_frame(endpoint: str) -> None:
    service = GlowTTSService(endpoint=endpoint, voice="nobody", tts="espeak-ng")
    _, up = await run_test(
        service, frames_to_send=[TTSSpeakFrame(TEXT), SleepFrame(sleep=0.5)], pipeline_params=PARAMS, start_timeout=60
    )
    assert "nobody" in " ".join(frame.error for frame in up if isinstance(frame, ErrorFrame))
