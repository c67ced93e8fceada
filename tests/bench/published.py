"""The setting that others publish: utterances of 880 and 895 frames, offline, at batch 1 and 8, beside the plain inversion.

The plain inversion is the network as defined, eager, whole utterance, fresh noise, no weight norm. Both run in turns, so
that whatever else the machine does befalls both.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from glowd.flow.checkpoint import load
from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.streaming import ExactVocoder, VocoderOptions
from glowd.flow.timing import some_mel
from tests.bench.network import device_name
from tests.bench.report import Result, percentiles_ms

CASES = ((880, 1), (895, 1), (895, 8))
CHUNK_FRAMES = 16


def published(device: str, threads: int, runs: int = 5, cases: tuple[tuple[int, int], ...] = CASES) -> Iterator[Result]:
    """Real-time factor and rate of each case (frames, batch), streamed and plain, and how many times faster streamed is."""
    torch.set_num_threads(threads)
    voice = load("embedded").to(device)
    vocoder = ExactVocoder(voice, VocoderOptions(device, max_batch=8))
    for frames, batch in cases:
        mel = some_mel(frames)
        ours, plain = in_turns([partial(streamed, vocoder, mel, batch), partial(whole, voice, mel, batch)], runs)
        seconds = batch * frames * vocoder.hop / vocoder.rate_hz
        settings = {"voice": "embedded", "frames": frames, "batch": batch, "threads": threads, "runs": runs}
        where = device_name(device)
        for name, times in ((f"in chunks of {CHUNK_FRAMES}", ours), ("plain inversion", plain)):
            rtf = float(np.median(times)) / seconds
            yield Result(f"utterance, {name}: RTF", rtf, "s/s", where, settings, "", percentiles_ms(times))
            yield Result(f"utterance, {name}: rate", vocoder.rate_hz / 1000 / rtf, "kHz", where, settings)
        yield Result("utterance: plain over ours", float(np.median(plain) / np.median(ours)), "x", where, settings)


def in_turns(calls: list[Callable[[], object]], runs: int) -> list[list[float]]:
    """Seconds of `runs` runs of each call, one after the other, after one that does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(runs + 1):
        for call, taken in zip(calls, times):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [taken[1:] for taken in times]


def streamed(vocoder: ExactVocoder, mel: Floats, batch: int) -> None:
    """A batch of whole utterances through the calls that stream."""
    streams = [vocoder.open(seed) for seed in range(batch)]
    for stream in streams:
        stream.push(mel)
        stream.end()
    while (frames := vocoder.ready_frames(streams[0], CHUNK_FRAMES)) is not None:
        vocoder.step(streams, frames)
    for stream in streams:
        vocoder.close(stream)


def whole(voice: WaveGlow, mel: Floats, batch: int) -> None:
    """The plain inversion of a batch; the samples are brought to the host."""
    device = next(voice.parameters()).device
    frames = torch.from_numpy(mel.T.copy()).expand(batch, -1, -1).to(device)
    groups = len(mel) * voice.config.groups_per_frame + voice.squeeze.extra_groups
    with torch.inference_mode():
        voice.inverse(torch.randn(batch, voice.config.group, groups, device=device), frames).cpu()
