"""The speed of a voice on this machine: the time of a step, by frames in a chunk and streams in a batch.

Rules: uses the vocoder interface only.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from glowd.flow.mel import Floats
from glowd.flow.vocoder import AnyVocoder

WARM_UP = 50


class Speed(NamedTuple):
    """Times of steps that render `chunk_frames` of each of `streams`: percentiles, and their ratio to the audio."""

    chunk_frames: int
    streams: int
    rtf: float
    """Real-time factor: mean time of a step over the duration of all its samples."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class Call(NamedTuple):
    """One call to `step`. `steady`: the call before had the same key, so nothing is allocated or filled for the first time."""

    seconds: float
    steady: bool


def some_mel(frames: int, seed: int = 0, n_mels: int = 80) -> Floats:
    """Synthetic frames with the mean and deviation of speech, as published benchmarks use them [L, M]."""
    return np.random.default_rng(seed).normal(-5.62, 1.98, (frames, n_mels)).clip(-11.5, 2).astype(np.float32)


def frames_per_call(vocoder: AnyVocoder, limit: int) -> int:
    """Frames that one call renders of a stream that has more than enough, where at most `limit` are wanted."""
    stream = vocoder.open()
    try:
        stream.push(some_mel(limit + vocoder.look_ahead_frames, n_mels=vocoder.format.n_mels))
        return vocoder.ready_frames(stream, limit) or 0
    finally:
        vocoder.close(stream)


def calls(
    vocoder: AnyVocoder, frames: int, batch: int, clock_s: Callable[[], float] = time.perf_counter
) -> Iterator[Call]:
    """Render `frames` of `batch` streams repeatedly, without end; closing the iterator closes the streams.

    The time includes copying the samples to the host. The window of context of a non-causal voice fills during the first
    calls, so these are cheaper; its calls are steady when their key repeats.
    """
    streams = [vocoder.open(seed) for seed in range(batch)]
    mel, key = some_mel(frames, n_mels=vocoder.format.n_mels), None
    try:
        for stream in streams:
            stream.push(some_mel(vocoder.look_ahead_frames + 1, 1, vocoder.format.n_mels))
        while True:
            for stream in streams:
                stream.push(mel)
            before, key = key, vocoder.key(streams[0], frames)
            start_s = clock_s()
            vocoder.step(streams, frames)
            yield Call(clock_s() - start_s, key == before)
    finally:
        for stream in streams:
            vocoder.close(stream)


def step_times(vocoder: AnyVocoder, frames: int, batch: int, runs: int, warm_up: int = WARM_UP) -> list[float]:
    """Seconds of each of `runs` steady calls, after a warm-up."""
    with contextlib.closing(calls(vocoder, frames, batch)) as timed:  # type: ignore[type-var]
        steady = (call.seconds for call in timed if call.steady)
        return [seconds for _, seconds in zip(range(warm_up + runs), steady)][warm_up:]


def speed(vocoder: AnyVocoder, frames: int, batch: int, runs: int, warm_up: int = WARM_UP) -> Speed:
    """The speed of `runs` steady calls, after a warm-up. Raises ValueError unless all numbers are positive."""
    for name, value in (("frames", frames), ("streams", batch), ("runs", runs)):
        if value < 1:
            raise ValueError(f"{name} is {value}; allowed: at least 1")
    times_ms = 1000 * np.asarray(step_times(vocoder, frames, batch, runs, warm_up))
    audio_ms = 1000 * frames * batch * vocoder.hop / vocoder.rate_hz
    p50, p90, p99 = (float(np.percentile(times_ms, q)) for q in (50, 90, 99))
    return Speed(frames, batch, float(times_ms.mean()) / audio_ms, p50, p90, p99, float(times_ms.max()))
