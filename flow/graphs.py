"""Runs one step of inversion for a batch of streams: eagerly on the CPU, as one CUDA-graph replay on a GPU.

The arithmetic is `StepRunner._compute` in both cases. On CUDA each (batch, frames, groups) bucket is captured once on a
persistent stream, with static input and output buffers and pinned host twins; a step then copies its inputs in, replays,
copies the samples out and waits for one event. Streams join and leave without a re-capture because a step reads and
writes their state in place through an index of slots; unused rows of a bucket work on a spare slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flow.inverter import Inverter, State
from flow.latents import NoiseTable
from flow.mel import Floats

CUDA_FRAMES = (1, 2, 4, 8, 16)
CUDA_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(slots=True)
class _Inputs:
    """Everything a step reads, batch first."""

    windows: Tensor  # [B, past + n + look_ahead, M] float32
    rows: Tensor  # [B] int64, first row in the noise table
    sigmas: Tensor  # [B] float32
    slots: Tensor  # [B] int64

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.windows, self.rows, self.sigmas, self.slots


class StepRunner:
    """Owns the device buffers of an inverter; one thread uses it."""

    def __init__(self, inverter: Inverter, noise: NoiseTable, max_batch: int) -> None:
        self.inverter, self.noise, self.max_batch = inverter, noise, max_batch
        self.cuda = inverter.device.type == "cuda"
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self._stream = torch.cuda.Stream(inverter.device) if self.cuda else None

    def largest(self, frames: int) -> int:
        """The largest number of frames, up to `frames`, that one step renders: any on the CPU, a bucket on CUDA."""
        if not self.cuda:
            return max(0, frames)
        return max((n for n in CUDA_FRAMES if n <= frames), default=0)

    def run(
        self,
        windows: Floats,
        groups: int,
        rows: Sequence[int],
        sigmas: Sequence[float],
        bank: State | None,
        slots: Sequence[int],
    ) -> Floats:
        """One step of B streams by S groups -> samples [B, S * G].

        windows: [B, past + n + look_ahead, M]; rows [B]: first rows in the noise table.
        Without a bank (overlapped windows) the state is a fresh one.
        """
        inputs = _Inputs(
            torch.from_numpy(windows),
            torch.tensor(rows),
            torch.tensor(sigmas, dtype=torch.float32),
            torch.tensor(slots, dtype=torch.int64),
        )
        with torch.inference_mode():
            if self.cuda and bank is not None:
                return self._replay(inputs, groups, bank)
            device = _Inputs(*(tensor.to(self.inverter.device) for tensor in inputs.tensors()))
            return self._compute(device, groups, bank).cpu().numpy()

    def _compute(self, inputs: _Inputs, groups: int, bank: State | None) -> Tensor:
        cond, minus_log_scale = self.inverter.condition(inputs.windows, groups)
        z = self.noise.rows(inputs.rows, groups) * inputs.sigmas[:, None, None]
        if bank is None:
            return self.inverter.invert(z, cond, minus_log_scale, self.inverter.initial_state(len(z)))
        state = bank.rows(inputs.slots)
        audio = self.inverter.invert(z, cond, minus_log_scale, state)
        bank.put(inputs.slots, state)
        return audio

    # ------------------------------------------------------------------- CUDA

    def _replay(self, inputs: _Inputs, groups: int, bank: State) -> Floats:
        batch, frames = inputs.windows.shape[:2]
        bucket = next((b for b in CUDA_BATCHES if b >= batch), batch)
        key = (bucket, frames, groups)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self, inputs, bucket, groups, bank)
        return self._graphs[key].replay(inputs)[:batch]


class _Graph:
    """One captured bucket: static device buffers, pinned host twins, the graph, and the event that says it is done."""

    def __init__(self, runner: StepRunner, like: _Inputs, bucket: int, groups: int, bank: State) -> None:
        device, self._cuda_stream = runner.inverter.device, runner._stream
        self._host = _Inputs(*(torch.zeros(bucket, *t.shape[1:], dtype=t.dtype).pin_memory() for t in like.tensors()))
        # The last slot of the bank is the spare one: rows of the bucket without a stream play there.
        self._spare = len(bank.past) - 1
        self._host.slots.fill_(self._spare)
        self._device = _Inputs(*(t.to(device) for t in self._host.tensors()))
        self._done = torch.cuda.Event()
        saved = State(bank.past.clone(), bank.tail.clone())
        with torch.cuda.stream(self._cuda_stream):
            for _ in range(2):
                runner._compute(self._device, groups, bank)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._cuda_stream):
                self._audio = runner._compute(self._device, groups, bank)
            bank.past.copy_(saved.past), bank.tail.copy_(saved.tail)
        self._audio_host = torch.empty(self._audio.shape, dtype=self._audio.dtype).pin_memory()

    def replay(self, inputs: _Inputs) -> Floats:
        """Copy in, replay, copy out; the one wait is for the event."""
        batch = len(inputs.rows)
        self._host.slots.fill_(self._spare)
        for host, given in zip(self._host.tensors(), inputs.tensors()):
            host[:batch] = given
        with torch.cuda.stream(self._cuda_stream):
            for device, host in zip(self._device.tensors(), self._host.tensors()):
                device.copy_(host, non_blocking=True)
            self._graph.replay()
            self._audio_host.copy_(self._audio, non_blocking=True)
            self._done.record(self._cuda_stream)
        self._done.synchronize()
        return self._audio_host.numpy().copy()
