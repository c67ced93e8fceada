"""The backends that can run the flows on a device, in turns on the same chunks, so that whatever else it does befalls all.

Beside the times stands what the flows need at least, so that a device's own peaks say how far the best is from them: each
weight is multiplied once for each group; weights, state, noise, conditioning and samples go through memory once.
`python -m tests.bench backends --device cuda` is all that it takes to choose a backend for a GPU.
"""

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glowd.flow.checkpoint import load
from glowd.flow.inversion.folding import Folded
from glowd.flow.mel import Floats
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.streaming import ChunkPlan, ExactVocoder, OverlapVocoder, VocoderOptions, stream_vocoder
from glowd.flow.timing import WARM_UP, calls
from glowd.flow.vocoder import render
from tests.bench.network import device_name
from tests.bench.ratios import waveglow_256
from tests.bench.report import Result, percentiles_ms
from tests.harness.mels import speech

BACKENDS = {"cpu": ("torch", "compiled"), "cuda": ("torch", "triton")}
EMBEDDED, CAUSAL_256, STOCK_256 = "embedded", "WaveGlow-256, causal, random weights", "WaveGlow-256, random weights"


class Case(NamedTuple):
    """A voice, the frames of a chunk and the streams of a batch."""

    voice: str
    frames: int
    streams: int


CASES = {
    "cpu": (Case(EMBEDDED, 4, 1), Case(EMBEDDED, 4, 10)),
    "cuda": (
        Case(EMBEDDED, 4, 1), Case(EMBEDDED, 4, 64), Case(EMBEDDED, 4, 512),
        Case(CAUSAL_256, 8, 1), Case(CAUSAL_256, 8, 64), Case(STOCK_256, 8, 1), Case(STOCK_256, 8, 16),
    ),
}  # fmt: skip


def backends(device: str, runs: int = 300, cases: int | None = None) -> Iterator[Result]:
    """The first `cases` of the device, all without: times of each backend, its error, and what torch takes over what it takes."""
    torch.set_num_threads(1)
    for case in CASES[device][:cases]:
        vocoders = {name: _vocoder(case, device, name) for name in BACKENDS[device]}
        times = dict(zip(vocoders, _steps_in_turns(list(vocoders.values()), case, runs)))
        reference = _some_speech(vocoders["torch"], case)
        for name, vocoder in vocoders.items():
            settings = {
                "voice": case.voice, "backend": name, "precision": str(vocoder.inverter.dtype).removeprefix("torch."),
                "chunk_frames": case.frames, "streams": case.streams, "threads": 1, "runs": runs,
            }  # fmt: skip
            where, spread = device_name(device), percentiles_ms(times[name])
            error = float(np.abs(_some_speech(vocoder, case) - reference).max())
            yield Result("by backend: chunk p50", spread["p50"], "ms", where, settings, "", spread | {"error": error})
            if name == "torch":
                flop, moved = floors(_voice(case.voice), vocoder.inverter.dtype, case.streams, _groups(vocoder, case))
            seconds = spread["p50"] / 1000
            yield Result("by backend: arithmetic of the flows", flop / seconds / 1e12, "TFLOP/s", where, settings)
            yield Result("by backend: memory of the flows", moved / seconds / 1e9, "GB/s", where, settings)
            over = float(np.median(times["torch"]) / np.median(times[name]))
            yield Result("by backend: torch over it", over, "x", where, settings)


def floors(voice: WaveGlow, dtype: torch.dtype, streams: int, groups: int) -> tuple[int, int]:
    """The least that the flows take for a step of B streams by S groups: floating-point operations, and bytes moved."""
    weights, config = Folded(voice, torch.device("cpu"), dtype), voice.config
    matrices: list[Tensor] = [weights.cond_weight, weights.source_weight, *(flow.unmix for flow in weights.flows)]
    for wn in weights.wns:
        matrices += [wn.start, wn.end]
        for layer in wn.layers:
            matrices += [layer.gates] if layer.residual is None else [layer.gates, layer.residual]
    rows, multiplied = streams * groups, sum(matrix.numel() for matrix in matrices)
    stored = sum(matrix.numel() * matrix.itemsize for matrix in matrices)
    rest = weights.rest(streams)
    state = 2 * (rest.past.numel() + rest.harmonic_past.numel()) * dtype.itemsize
    return 2 * rows * multiplied, stored + state + rows * (config.cond_channels * dtype.itemsize + 2 * config.group * 4)


def _voice(name: str) -> WaveGlow:
    return load("embedded") if name == EMBEDDED else waveglow_256(causal=name == CAUSAL_256)


def _vocoder(case: Case, device: str, backend: str) -> ExactVocoder | OverlapVocoder:
    batch = case.streams
    options = VocoderOptions(device, max_batch=batch, slots=batch, backend=backend)
    return stream_vocoder(_voice(case.voice), ChunkPlan(case.frames), options)


def _groups(vocoder: ExactVocoder | OverlapVocoder, case: Case) -> int:
    """What one step renders of each stream; a voice that is not causal renders the rim of its window, too."""
    plan = vocoder.plan if isinstance(vocoder, OverlapVocoder) else ChunkPlan(case.frames, 0, 0, 0)
    frames = plan.context_frames + plan.chunk_frames + plan.look_ahead_frames
    return frames * vocoder.config.groups_per_frame


def _some_speech(vocoder: ExactVocoder | OverlapVocoder, case: Case) -> Floats:
    """Half a second in the case's chunks, for the error."""
    return render(vocoder, speech()[:48], 1, case.frames)


def _steps_in_turns(vocoders: list[ExactVocoder | OverlapVocoder], case: Case, runs: int) -> list[list[float]]:
    """Seconds of `runs` steady steps of each vocoder, a step of each at a time, after a warm-up."""
    with contextlib.ExitStack() as stack:
        timed = [stack.enter_context(contextlib.closing(calls(v, case.frames, case.streams))) for v in vocoders]  # type: ignore[type-var]
        steady = [(call.seconds for call in each if call.steady) for each in timed]
        rounds = list(islice(zip(*steady), min(WARM_UP, runs), min(WARM_UP, runs) + runs))
    return [list(times) for times in zip(*rounds)]
