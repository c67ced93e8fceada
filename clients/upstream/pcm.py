"""Speech as samples that are still arriving -> mel frames, at the voice's rate, and faster or slower.

Rules: no program and no model. soxr is imported when rates differ.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glowd.flow.mel import Floats, MelFormat, MelStream


def mel_of_pcm(blocks: Iterable[Floats], rate_hz: float, wanted: MelFormat) -> Generator[Floats, None, None]:
    """Samples [T] of one speech in blocks -> its frames [n, M] in chunks; none if it is too short for a frame."""
    stream, samples = MelStream(wanted), 0
    for block in resampled(blocks, rate_hz, wanted.rate_hz):
        samples += len(block)
        frames = stream.push(block)
        if len(frames):
            yield frames
    if samples > wanted.n_fft // 2:
        yield stream.end()


def resampled(blocks: Iterable[Floats], from_hz: float, to_hz: int) -> Iterator[Floats]:
    """The same speech at another rate."""
    if from_hz == to_hz:
        yield from blocks
        return
    import soxr

    resampler = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def at_rate(chunks: Iterable[Floats], rate: float) -> Generator[Floats, None, None]:
    """Frames [n, M] of a speech `rate` times as fast, between the frames by linear interpolation of their logs.

    Frame k of the result is that at position k * rate; so 1 / rate of the frames are left, and the pitch stays.
    """
    if rate == 1:
        yield from chunks
        return
    held, made, passed = None, 0, 0  # `held` begins with frame number `passed`
    for chunk in chunks:
        held = chunk if held is None else np.concatenate([held, chunk])
        last = passed + len(held) - 1
        count = max(0, int(last / rate) + 1 - made)
        positions = (made + np.arange(count)) * rate
        made += count
        if count:
            yield between(held, positions - passed)
        drop = min(max(0, int(made * rate) - passed), len(held) - 1)
        held, passed = held[drop:], passed + drop


def between(frames: Floats, positions: NDArray[np.floating[Any]]) -> Floats:
    """The frames [n, M] at positions from 0 to the last frame."""
    before = np.minimum(positions.astype(np.int64), len(frames) - 1)
    after = np.minimum(before + 1, len(frames) - 1)
    part = (positions - before)[:, None].astype(np.float32)
    mixed: Floats = frames[before] * (1 - part) + frames[after] * part
    return mixed
