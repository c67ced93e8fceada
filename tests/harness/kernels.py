"""Comparisons for test_triton_backend.py, which run in a process of their own: Triton reads once, at import, whether to
interpret its kernels.

On a machine with CUDA the same comparisons run on the device.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glowd.flow.inversion import triton_backend
from glowd.flow.inversion.folding import Folded
from glowd.flow.inversion.runner import StepRunner
from glowd.flow.inversion.state import State
from glowd.flow.inversion.step import Step
from glowd.flow.inversion.torch_backend import TorchStep
from glowd.flow.inversion.triton_backend import TritonStep
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.streaming import ChunkPlan, VocoderOptions, stream_vocoder
from glowd.flow.timing import some_mel
from glowd.flow.vocoder import render
from tests.harness.voices import random_voice, sourced, tiny

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Differences = dict[str, float]


def of(geometry: dict[str, Any]) -> WaveGlowConfig:
    """A small voice of any kind; with `sourced`, one that has a source."""
    with_source = dict(geometry)
    return sourced(**with_source) if with_source.pop("sourced", False) else tiny(**geometry)


def run(
    kind: Callable[[Folded, State, int], Step], weights: Folded, batch: int, chunks: Sequence[int]
) -> dict[str, Tensor]:
    """Audio and state of B streams after chunks of so many frames, of one sequence of frames and noise."""
    config, random = weights.config, torch.Generator().manual_seed(batch)
    state, per_frame = weights.rest(batch), config.groups_per_frame
    rim = weights.past_frames + weights.look_ahead_frames
    mel = torch.randn(batch, sum(chunks) + rim, config.mel.n_mels, generator=random).to(DEVICE) - 5.6
    z = torch.randn(batch, sum(chunks) * per_frame, config.group, generator=random).to(DEVICE)
    steps = {frames: kind(weights, state, frames * per_frame) for frames in set(chunks)}
    at, parts = 0, []
    with torch.inference_mode():
        for frames in chunks:
            noise = z[:, at * per_frame : (at + frames) * per_frame]
            parts.append(steps[frames](mel[:, at : at + frames + rim], noise).clone())
            at += frames
    past = torch.cat([state.past.float().flatten(1), state.harmonic_past.float().flatten(1)], 1)
    return {"audio": torch.cat(parts, 1), "past": past}


def differences(
    geometry: dict[str, Any], batch: int, chunks: Sequence[int], plant: str = "", backwards: bool = False
) -> Differences:
    """The largest between Triton in chunks and torch (all at once, if the voice is causal), float32; first one error planted."""
    voice = random_voice(of(geometry))
    weights, broken = Folded(voice, DEVICE, torch.float32), Folded(voice, DEVICE, torch.float32)
    if plant:
        PLANTS[plant](broken)
    with programs_backwards() if backwards else contextlib.nullcontext():
        ours = run(TritonStep, broken, batch, chunks)
    expected = run(TorchStep, weights, batch, [sum(chunks)] if voice.config.causal else chunks)
    return {name: largest(ours[name] - expected[name]) for name in ours}


def largest(values: Tensor) -> float:
    """Magnitude; 0 where there is nothing, as in the state of a voice that needs none."""
    return float(values.abs().max()) if values.numel() else 0.0


def rounding(geometry: dict[str, Any], batch: int, chunks: Sequence[int], precision: str) -> Differences:
    """What operands of half the width change against torch in float32: audio at most, and mean squares over torch's own."""
    voice = random_voice(of(geometry))
    half = Folded(voice, DEVICE, getattr(torch, precision))
    expected = run(TorchStep, Folded(voice, DEVICE, torch.float32), batch, chunks)
    ours, theirs = (
        {name: value - expected[name] for name, value in run(kind, half, batch, chunks).items()}
        for kind in (TritonStep, TorchStep)
    )
    ratios = {name: float(ours[name].square().mean() / theirs[name].square().mean()) for name in ours}
    return {"largest": largest(ours["audio"])} | ratios


def streamed(geometry: dict[str, Any], frames: int, chunk: int) -> tuple[str, float]:
    """How a vocoder with backend triton describes itself, and the largest difference of its samples from backend torch.

    Both run in the static buckets that a CUDA graph replays; on CUDA they are graphs.
    """
    voice, plan = random_voice(of(geometry)), ChunkPlan(chunk, 1, 1, 64)
    ours, theirs = (
        stream_vocoder(voice, plan, VocoderOptions(str(DEVICE), 2, 2, backend, "float32"))
        for backend in ("triton", "torch")
    )
    for vocoder in (ours, theirs):
        vocoder.runner = StepRunner(vocoder.inverter, vocoder.noise, bucketed=True)
    audio, expected = (render(vocoder, some_mel(frames), 1, chunk) for vocoder in (ours, theirs))
    return ours.inverter.describe(), float(np.abs(audio - expected).max())


def _dilation(weights: Folded) -> None:
    layers = weights.flows[0].wn.layers
    layers[1] = replace(layers[1], dilation=1)


def _weight(name: str) -> Callable[[Folded], None]:
    """The very last weight of a matrix of the first flow's first layer."""

    def plant(weights: Folded) -> None:
        getattr(weights.flows[0].wn.layers[0], name)[-1, -1] += 0.1

    return plant


PLANTS = {"gates": _weight("gates"), "residual": _weight("residual"), "dilation": _dilation}


@contextlib.contextmanager
def programs_backwards() -> Iterator[None]:
    """Inside, the interpreter runs the programs of a launch from the last to the first. A device has no order to reverse."""
    if not triton_backend.INTERPRETED:
        yield
        return
    from triton.runtime.interpreter import interpreter_builder as builder

    forwards = builder.set_grid_idx
    builder.set_grid_idx = lambda x, y, z: forwards(builder.grid_dim[0] - 1 - x, y, z)
    yield
    builder.set_grid_idx = forwards
