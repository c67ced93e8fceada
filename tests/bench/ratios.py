"""Ours beside the plain inversion on the same frames and latents, in turns, so that whatever else the machine does befalls both.

The plain inversion is the network as defined (waveglow.py): eager, weight norm removed, nothing cached. To give the chunk
that we give, it has to render the whole receptive field before the chunk once more.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from glowd.flow.checkpoint import load
from glowd.flow.latents import NoiseTable, first_phase
from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions
from glowd.flow.timing import some_mel
from glowd.flow.vocoder import drain, render
from tests.bench.network import device_name
from tests.bench.published import in_turns
from tests.bench.report import Result
from tests.harness.mels import speech


def medians_in_turns(calls: list[Callable[[], object]], runs: int) -> list[float]:
    """Median seconds of each call over `runs` rounds in which the calls take turns."""
    return [float(np.median(times)) for times in in_turns(calls, runs)]


def plain(voice: WaveGlow, mel: Floats, seed: int, device: str) -> Floats:
    """The network's own inverse of frames [L, M] with latents and phase of `seed`; sigma is the voice's."""
    groups = len(mel) * voice.config.groups_per_frame + voice.squeeze.extra_groups
    noise, frames = NOISE[voice.config.group], torch.from_numpy(mel.T[None].copy()).to(device)
    z = noise.rows(torch.tensor([noise.first_row(seed)]), groups).transpose(1, 2) * voice.config.sigma
    with torch.inference_mode():
        source = voice.free_source(frames, torch.tensor([first_phase(seed)]))
        return voice.inverse(z.to(device), frames, source=source)[0].cpu().numpy()


NOISE = {group: NoiseTable(group) for group in (8, 64)}


def chunkwise(device: str, threads: int, frames: int = 4, runs: int = 50) -> Iterator[Result]:
    """One stream of the embedded voice in small chunks: time of ours and of the plain inversion, and whether they agree."""
    torch.set_num_threads(threads)
    voice = load("embedded").to(device)
    vocoder = ExactVocoder(voice, VocoderOptions(device))
    history, look = vocoder.history_frames, vocoder.look_ahead_frames
    delay = vocoder.latency_samples
    stream, mel = vocoder.open(0), speech()[: history + 2 * frames + look]
    # The plain inversion sees the history, the chunk, and what is needed after it for its last group to be complete.
    stream.push(mel[: history + look])
    list(drain(vocoder, stream, 16))
    stream.push(mel[history + look : history + look + frames])
    ours = vocoder.step([stream], frames)[0]
    whole = plain(voice, mel[: history + frames + 1 + look], 0, device)
    error = float(np.abs(ours - whole[history * vocoder.hop - delay :][: len(ours)]).max())

    def step() -> None:
        stream.push(mel[:frames])
        vocoder.step([stream], frames)

    step_s, plain_s = medians_in_turns([step, lambda: plain(voice, mel[: history + frames + look], 0, device)], runs)
    settings = {
        "voice": "embedded",
        "chunk_frames": frames,
        "history_frames": history,
        "threads": threads,
        "runs": runs,
    }
    where, seconds = device_name(device), frames * vocoder.hop / vocoder.rate_hz
    yield Result("in chunks: ours, RTF", step_s / seconds, "s/s", where, settings)
    yield Result("in chunks: plain with recompute, RTF", plain_s / seconds, "s/s", where, settings)
    yield Result("in chunks: plain over ours", plain_s / step_s, "x", where, settings, ">= 5")
    yield Result("in chunks: plain - ours, largest", error, "of full scale", where, settings)


def waveglow_256(causal: bool = False) -> WaveGlow:
    """The published geometry with random weights, or one that is causal and otherwise the same."""
    torch.manual_seed(0)
    voice = WaveGlow(WaveGlowConfig.stock(256, causal=causal)).eval()
    for parameter in voice.parameters():  # couplings begin as the identity; let them do something
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return voice


def published_geometry(device: str, threads: int, frames: int = 32, runs: int = 5) -> Iterator[Result]:
    """WaveGlow-256 with random weights (speed does not depend on them), whole utterance: plain, float32 and bf16."""
    torch.set_num_threads(threads)
    voice = waveglow_256().to(device)
    mel = some_mel(frames)
    ours = {
        precision: OverlapVocoder(voice, ChunkPlan(frames, 0, 0, 0), VocoderOptions(device, precision=precision))
        for precision in ("float32", "bf16")
    }
    reference = plain(voice, mel, 0, device)
    medians = medians_in_turns(
        [
            lambda: plain(voice, mel, 0, device),
            *(lambda vocoder=vocoder: render(vocoder, mel, 0, frames) for vocoder in ours.values()),
        ],
        runs,
    )
    settings = {"voice": "WaveGlow-256, random weights", "frames": frames, "threads": threads, "runs": runs}
    where, seconds = device_name(device), frames * voice.config.mel.hop / voice.config.mel.rate_hz
    yield Result("whole utterance: plain, RTF", medians[0] / seconds, "s/s", where, settings)
    for (precision, vocoder), median in zip(ours.items(), medians[1:]):
        error = render(vocoder, mel, 0, frames) - reference
        error_db = 10 * np.log10((error**2).mean() / (reference**2).mean())
        yield Result(f"whole utterance: ours in {precision}, RTF", median / seconds, "s/s", where, settings)
        goal = ">= 2" if precision == "bf16" else ""
        yield Result(
            f"whole utterance: plain over ours in {precision}", medians[0] / median, "x", where, settings, goal
        )
        yield Result(f"whole utterance: error in {precision}", float(error_db), "dB", where, settings)
