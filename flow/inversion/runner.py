"""Runs one step of inversion for a batch of streams: eagerly, or from static buffers as one CUDA-graph replay.

The arithmetic is `StepRunner._compute` in both cases. On CUDA every step that will come again runs in a bucket (batch,
frames, groups): device buffers and pinned host twins that never move, and a graph captured once on a persistent stream.
A step then copies its inputs in, replays, copies the samples out and waits for one event. Streams join and leave without
a re-capture, because a step reads and writes their state in place through an index of slots; rows of a bucket that carry
no stream work on a spare slot.

Buckets work without CUDA too (`bucketed=True`; the capture is then a plain call), which is how they are tested anywhere.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glowd.flow.inversion.inverter import Inverter
from glowd.flow.inversion.state import State
from glowd.flow.latents import NoiseTable
from glowd.flow.mel import Floats

Phases = NDArray[np.float64]

BUCKET_FRAMES = (1, 2, 4, 8, 16)
BUCKET_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(slots=True)
class _Inputs:
    """Everything a step reads, batch first."""

    windows: Tensor  # [B, past + n + look_ahead, M] float32
    rows: Tensor  # [B] int64, first row in the noise table
    sigmas: Tensor  # [B] float32
    slots: Tensor  # [B] int64, the spare one where there is no stream

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.windows, self.rows, self.sigmas, self.slots


class StepRunner:
    """Owns the device buffers of an inverter; one thread uses it. `bucketed` None: on CUDA only."""

    def __init__(self, inverter: Inverter, noise: NoiseTable, bucketed: bool | None = None) -> None:
        self.inverter, self.noise = inverter, noise
        self.cuda = inverter.device.type == "cuda"
        self.bucketed = self.cuda if bucketed is None else bucketed
        self._stream = torch.cuda.Stream(inverter.device) if self.cuda else None
        self._buckets: dict[tuple[int, int, int], _Bucket] = {}

    def largest(self, frames: int) -> int:
        """The largest number of frames, up to `frames`, that one step renders: a bucket's, or any."""
        if not self.bucketed:
            return max(0, frames)
        return max((n for n in BUCKET_FRAMES if n <= frames), default=0)

    def shapes(self, max_batch: int, max_frames: int) -> list[tuple[int, int]]:
        """(batch, frames) of the steps to warm up before streams come: all buckets, or the extremes."""
        if not self.bucketed:
            return [(1, max_frames), (max_batch, max_frames)]
        batches = [b for b in BUCKET_BATCHES if b < max_batch] + [max_batch]
        return [(batch, frames) for batch in batches for frames in BUCKET_FRAMES if frames <= max_frames]

    @property
    def bucket_shapes(self) -> frozenset[tuple[int, int, int]]:
        """(batch, frames of the windows, groups) of the steps that are prepared."""
        return frozenset(self._buckets)

    def on_stream(self) -> contextlib.AbstractContextManager[object]:
        """Work inside is ordered with the steps: on CUDA they run on a stream of their own."""
        return torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext()

    def run(
        self,
        windows: Floats,
        groups: int,
        rows: Sequence[int],
        sigmas: Sequence[float],
        bank: State | None,
        slots: Sequence[int],
        repeats: bool,
    ) -> tuple[Floats, Phases]:
        """One step of B streams by S groups -> samples [B, S * G], and the phases of their sources behind it [B].

        windows: [B, past + n + look_ahead, M]; rows [B]: first rows in the noise table. Without a bank (overlapped
        windows) the state is a fresh one. `repeats`: this shape will come again, so it is worth a bucket.
        """
        inputs = _Inputs(
            torch.from_numpy(windows),
            torch.tensor(rows),
            torch.tensor(sigmas, dtype=torch.float32),
            torch.tensor(slots if bank else [0] * len(rows), dtype=torch.int64),
        )
        with torch.inference_mode(), self.on_stream():
            if self.bucketed and repeats:
                return self._bucket(inputs, groups, bank).step(inputs)
            device = _Inputs(*(tensor.to(self.inverter.device) for tensor in inputs.tensors()))
            audio, phases = self._compute(device, groups, bank)
            return audio.cpu().numpy(), phases.cpu().numpy().copy()

    def _compute(self, inputs: _Inputs, groups: int, bank: State | None) -> tuple[Tensor, Tensor]:
        workspace = self.inverter.workspace(len(inputs.rows), groups)
        z = self.noise.rows(inputs.rows, groups) * inputs.sigmas[:, None, None]
        if bank is None:
            workspace.state.tail.zero_()
            return self.inverter.invert(inputs.windows, z, workspace), workspace.state.phase
        bank.read(inputs.slots, workspace.state)
        audio = self.inverter.invert(inputs.windows, z, workspace)
        bank.put(inputs.slots, workspace.state)
        return audio, workspace.state.phase

    def _bucket(self, inputs: _Inputs, groups: int, bank: State | None) -> "_Bucket":
        batch, frames = inputs.windows.shape[:2]
        size = next((b for b in BUCKET_BATCHES if b >= batch), batch)
        key = (size, frames, groups)
        if key not in self._buckets:
            self._buckets[key] = _Bucket(self, inputs, size, groups, bank)
        return self._buckets[key]


class _Bucket:
    """Static buffers for one shape, the captured step between them, and the event that says it is done."""

    def __init__(self, runner: StepRunner, like: _Inputs, size: int, groups: int, bank: State | None) -> None:
        device, self._cuda = runner.inverter.device, runner.cuda
        self._spare = len(bank.past) - 1 if bank else 0
        self._host = _Inputs(*(self._pinned(torch.zeros(size, *t.shape[1:], dtype=t.dtype)) for t in like.tensors()))
        self._host.slots.fill_(self._spare)
        self._device = _Inputs(*(t.to(device) for t in self._host.tensors())) if self._cuda else self._host
        self._compute = lambda: runner._compute(self._device, groups, bank)
        # A graph replays on this memory: hold it, even if the inverter drops its workspace.
        self._workspace = runner.inverter.workspace(size, groups)
        if self._cuda:
            # The spare slot's state is scratch, so capturing, which runs on it, disturbs no stream.
            self._done, self._graph = torch.cuda.Event(), torch.cuda.CUDAGraph()
            for _ in range(2):
                self._compute()
            torch.cuda.current_stream().synchronize()
            with torch.cuda.graph(self._graph, stream=runner._stream):
                self._outputs = self._compute()
            self._outputs_host = [self._pinned(torch.empty(t.shape, dtype=t.dtype)) for t in self._outputs]

    def step(self, inputs: _Inputs) -> tuple[Floats, Phases]:
        """Copy in, run, copy out: samples [B, S * G] and phases [B] of the rows that carry streams."""
        batch = len(inputs.rows)
        self._host.slots[batch:] = self._spare
        for host, given in zip(self._host.tensors(), inputs.tensors()):
            host[:batch] = given
        if not self._cuda:
            audio, phases = self._compute()
            return audio[:batch].numpy(), phases[:batch].numpy().copy()
        for device, host in zip(self._device.tensors(), self._host.tensors()):
            device.copy_(host, non_blocking=True)
        self._graph.replay()
        for host, device in zip(self._outputs_host, self._outputs):
            host.copy_(device, non_blocking=True)
        self._done.record()
        self._done.synchronize()
        samples, behind = (host[:batch].numpy().copy() for host in self._outputs_host)
        return samples, behind

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._cuda else tensor
