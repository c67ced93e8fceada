"""The network alone, in this process: real-time factor, chunk times, and error beside speed."""

import time
from collections.abc import Iterator

import numpy as np
import torch

from glowd.flow.checkpoint import load
from glowd.flow.evaluation.exactness import definition
from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.phase_recovery.rtisi import RtisiVocoder
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions
from glowd.flow.timing import WARM_UP, some_mel, step_times
from glowd.flow.vocoder import Vocoder, drain, render
from tests.bench.report import Result, cpu_name, percentiles_ms
from tests.harness.mels import speech

RUNS = 1000
ERROR_FRAMES, ERROR_SEED = 96, 1
"""What error beside speed is measured on: so many frames of speech, and the seed of its latents."""


def device_name(device: str) -> str:
    """What the rows were measured on."""
    return torch.cuda.get_device_name() if device == "cuda" else cpu_name()


def chunk_times(vocoder: Vocoder, frames: int, batch: int, runs: int) -> list[float]:
    """Seconds of each of `runs` calls that render `frames` of `batch` streams, after a warm-up."""
    return step_times(vocoder, frames, batch, runs, warm_up=min(WARM_UP, runs))


def error_of_chunks(vocoder: Vocoder, reference: Floats, frames: int) -> float:
    """Largest difference to the whole utterance when speech is streamed in chunks of `frames`."""
    return float(np.abs(render(vocoder, speech()[:ERROR_FRAMES], ERROR_SEED, frames) - reference).max())


SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (4, 3), (4, 10))
"""(frames, streams) of the calls that are timed."""


def embedded(device: str, threads: int, runs: int = RUNS) -> Iterator[Result]:
    """The embedded voice: one stream by chunk size, and several streams in one batch."""
    torch.set_num_threads(threads)
    voice = load("embedded")
    vocoder = ExactVocoder(voice, VocoderOptions(device))
    reference = definition(voice, speech()[:ERROR_FRAMES], ERROR_SEED, vocoder.sigma).astype(np.float32)
    yield from speed(vocoder, "embedded", device, threads, runs, reference, ("<= 0.08", "<= 15"))


def without_network(runs: int = RUNS) -> Iterator[Result]:
    """The same of live Griffin-Lim, which has one thread; its whole is the utterance as one chunk."""
    vocoder = RtisiVocoder()
    whole = render(vocoder, speech()[:ERROR_FRAMES], ERROR_SEED, ERROR_FRAMES)
    yield from speed(vocoder, "rtisi", "cpu", 1, runs, whole, ("<= 0.25", "<= 27.9"))


def speed(
    vocoder: Vocoder, voice: str, device: str, threads: int, runs: int, reference: Floats, goals: tuple[str, str]
) -> Iterator[Result]:
    """Real-time factor and chunk times of a voice, and how far its chunks are from `reference`, the whole utterance.

    `goals`: of the real-time factor and of the 99th percentile in ms, for one stream in chunks of 4 frames on a CPU.
    """
    where = device_name(device)
    for frames, batch in SHAPES:
        times = chunk_times(vocoder, frames, batch, runs)
        spread = percentiles_ms(times)
        chunk_ms = 1000 * frames * vocoder.hop / vocoder.rate_hz
        settings = {"voice": voice, "chunk_frames": frames, "streams": batch, "threads": threads, "runs": runs}
        goal = (frames, batch) == (4, 1) and device == "cpu"
        rtf = float(np.mean(times)) * 1000 / (chunk_ms * batch)
        beside = spread | {"error": error_of_chunks(vocoder, reference, frames)}
        yield Result("RTF per stream", rtf, "s/s", where, settings, goals[0] if goal else "", beside)
        yield Result("chunk p50", spread["p50"], "ms", where, settings)
        yield Result("chunk p99", spread["p99"], "ms", where, settings, goals[1] if goal else "")


def baseline(device: str, threads: int) -> Iterator[Result]:
    """The plain inversion (whole utterance, the network as defined, fresh noise) beside ours, on the same 895 frames."""
    torch.set_num_threads(threads)
    voice = load("embedded").to(device)
    mel = torch.from_numpy(some_mel(895).T[None].copy()).to(device)
    groups = 895 * voice.config.groups_per_frame + voice.squeeze.extra_groups
    seconds = 895 * 256 / 22050
    times = []
    with torch.inference_mode():
        for _ in range(6):
            start = time.perf_counter()
            voice.inverse(torch.randn(1, voice.config.group, groups, device=device), mel).cpu()
            times.append(time.perf_counter() - start)
    settings = {"voice": "embedded", "frames": 895, "threads": threads, "runs": 5}
    yield Result(
        "plain whole-utterance inversion RTF",
        float(np.median(times[1:])) / seconds,
        "s/s",
        device_name(device),
        settings,
    )


def exactness(device: str) -> Iterator[Result]:
    """Streamed against offline and against the network's definition: the largest differences over 100 random chunkings of
    one sentence, and the timeline. Offline is the utterance as one chunk; the definition's sums run in another order, so its
    bound is wider. Over many recordings `glowlab exactness` measures the second."""
    torch.set_num_threads(1)
    voice, rng = load("embedded"), np.random.default_rng(0)
    vocoder, mel = ExactVocoder(voice, VocoderOptions(device)), speech()[:120]
    whole, defined = render(vocoder, mel, 1, len(mel)), definition(voice, mel, seed=1, sigma=vocoder.sigma)
    worst, worst_defined, wrong_length = 0.0, 0.0, 0
    for _ in range(100):
        stream, at, parts = vocoder.open(1), 0, []
        while at < len(mel):
            cut = int(rng.integers(1, 20))
            stream.push(mel[at : at + cut])
            at += cut
            parts += list(drain(vocoder, stream, int(rng.integers(1, 17))))
        stream.end()
        audio = np.concatenate([*parts, *drain(vocoder, stream, 16)])
        vocoder.close(stream)
        wrong_length += len(audio) != len(mel) * 256
        worst = max(worst, float(np.abs(audio - whole).max()))
        worst_defined = max(worst_defined, float(np.abs(audio - defined).max()))
    settings = {"voice": "embedded", "frames": 120, "chunkings": 100}
    where = device_name(device)
    goals = ("<= 1e-5", "<= 1e-4") if device == "cpu" else ("", "")
    yield Result("streamed - offline, largest", worst, "of full scale", where, settings, goals[0])
    yield Result("streamed - network as defined, largest", worst_defined, "of full scale", where, settings, goals[1])
    yield Result("utterances not frames x 256 samples long", wrong_length, "of 100", where, settings, "<= 0")


def stock(device: str, threads: int) -> Iterator[Result]:
    """Published geometry, 256 channels, random weights (speed does not depend on them): whole utterance and one window."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = WaveGlowConfig.stock(256)
    frames = 895 if device == "cuda" else 32
    plan = ChunkPlan(frames, 0, 0, 0)
    vocoder, mel = OverlapVocoder(WaveGlow(config), plan, VocoderOptions(device)), some_mel(frames)
    times = []
    for _ in range(7 if device == "cuda" else 3):
        start = time.perf_counter()
        render(vocoder, mel, 0, frames)
        times.append(time.perf_counter() - start)
    rtf = float(np.median(times[1:])) / (frames * 256 / 22050)
    settings = {"voice": "WaveGlow-256, random weights", "frames": frames, "threads": threads, "runs": len(times) - 1}
    yield Result("whole-utterance RTF", rtf, "s/s", device_name(device), settings)
    yield Result("whole-utterance rate", 22.05 / rtf, "kHz", device_name(device), settings)
