"""A step in compiled loops (numba_loops.py), for causal voices in float32 on a CPU.

A chunk's products are small: as calls of a library, one by one, they take as long to call as to compute. Here a step is about
thirty calls, and each does its part of the work for all streams of a thread.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glowd.flow.inversion import numba_loops as loops
from glowd.flow.inversion.folding import Folded, WNWeights
from glowd.flow.inversion.numba_matmul import LANES, Array, packed
from glowd.flow.inversion.state import State
from glowd.flow.network.waveglow import MEL_SCALE_MIDDLE


class _WNArrays(NamedTuple):
    """The weights of a WN as `_wn` reads them, products packed."""

    start: Array  # [m + Q, C]: own rows, then the source's
    start_bias: Array  # [C]
    gates: Array  # [L] of [k * C + C_cond, 2C]: taps, then conditioning
    gate_bias: Array  # [L, 2C]
    residual: Array  # [L - 1] of [C, C]
    end: Array  # [L * C, n]
    end_bias: Array  # [n]

    @classmethod
    def of(cls, weights: Folded, wn: WNWeights) -> "_WNArrays":
        """Packed for the products of this machine."""
        layers, bias = len(wn.layers), weights.source_bias[wn.source]
        conds = weights.cond_weight[:, wn.cond].unflatten(1, (layers, 2 * len(bias))).unbind(1)
        residual = [layer.residual for layer in wn.layers if layer.residual is not None]
        return cls(
            start=packed(torch.cat([wn.start, weights.source_weight[:, wn.source]])),
            start_bias=bias.contiguous().numpy(),
            gates=packed(torch.stack([torch.cat([layer.gates, c]) for layer, c in zip(wn.layers, conds)])),
            gate_bias=weights.cond_bias[wn.cond].view(layers, -1).contiguous().numpy(),
            residual=packed(torch.cat([*residual, torch.zeros(0, len(bias))]).view(-1, len(bias), len(bias))),
            end=packed(wn.end),
            end_bias=wn.end_bias.numpy(),
        )


class _Memory:
    """What the steps of all shapes use in turn, for only one runs at a time: as much as the largest of them needs."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, *shape: int, dtype: type = np.float32) -> Array:
        """The array of that name, with whatever the step before has left in it."""
        size, held = math.prod(shape), self._arrays.get(name)
        if held is None or held.size < size:
            held = self._arrays[name] = np.zeros(size, dtype)
        return held[:size].reshape(shape)


class _Scratch(NamedTuple):
    """Memory of WNs of one shape, for some streams by S groups; gates and ends for one stream at a time."""

    windows: Array  # [B, longest reach + S, C]: past | h
    gates: Array  # [S, 2C]
    gated: Array  # [B, S, L * C]
    ends: Array  # [S, n]

    @classmethod
    def of(cls, memory: _Memory, batch: int, groups: int, kernel: int, wn: _WNArrays, n: int) -> "_Scratch":
        """For WNs of this shape whose ends have at most n columns."""
        layers, channels = len(wn.gates), len(wn.start_bias)
        longest = (kernel - 1) * 2 ** (layers - 1)
        return cls(
            memory.array("windows", batch, longest + groups, channels),
            memory.array("gates", groups, 2 * channels),
            memory.array("gated", batch, groups, layers * channels),
            memory.array("ends", groups, n),
        )


class _Dense(NamedTuple):
    """A layer on rows [n, K] -> [n, N], N being a whole number of vectors; columns that the layer does not have are 0."""

    weights: Array  # packed
    bias: Array  # [N]
    silu: bool
    residual: bool
    columns: int  # those that it has

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, silu: bool, residual: bool = False) -> "_Dense":
        """From a weight [N, K]; float64 where the layer is to run so."""
        widths, columns = [LANES] if weight.dtype == torch.float64 else None, len(bias)
        weights = F.pad(weight.T.float(), (0, -columns % LANES))
        return cls(packed(weights, widths), F.pad(bias, (0, -columns % LANES)).numpy(), silu, residual, columns)

    def cut(self, h: Array) -> Array:
        """What the layer gave, without the columns that it does not have."""
        return np.ascontiguousarray(h[:, : self.columns])


class _FlowArrays(NamedTuple):
    """One flow: which columns of x it begins with, where its past begins, and its weights."""

    first: int
    at: int
    wn: _WNArrays
    unmix: Array  # [n, n], packed


class CompiledVoice:
    """The weights of a voice, and the threads that share a batch: as many as torch might use when it was made."""

    def __init__(self, weights: Folded) -> None:
        config = weights.config
        self.weights, self.config = weights, config
        self.encoder = [_Dense.of(*linear) for linear in weights.encoder]
        self.scale = [_Dense.of(*linear) for linear in weights.scale]
        self.pitch = [] if weights.pitch is None else [_Dense.of(*layer) for layer in weights.pitch.layers()]
        self.flows = [
            _FlowArrays(
                config.group - rows, flow.wn.layers[0].past.start, _WNArrays.of(weights, flow.wn), packed(flow.unmix)
            )
            for rows, flow in zip(config.rows, weights.flows)
        ]
        self.harmonic = None if weights.harmonic is None else _WNArrays.of(weights, weights.harmonic)
        self.basis, self.basis_back = packed(weights.basis.T), packed(weights.basis)
        self.threads = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.threads, "flows") if self.threads > 1 else None
        self.memories = [_Memory() for _ in range(self.threads)]

    def step(self, state: State, groups: int) -> "CompiledStep":
        """The step of as many streams as the state has, by S groups."""
        return CompiledStep(self, state, groups)


class _Part:
    """The part of a step that one thread computes: some streams, with views into their state, and memory for it."""

    def __init__(self, voice: CompiledVoice, memory: _Memory, state: State, streams: slice, groups: int) -> None:
        config, batch = voice.config, streams.stop - streams.start
        self.voice, self.streams, self.groups = voice, streams, groups
        self._past, self._harmonic_past = state.past.numpy()[streams], state.harmonic_past.numpy()[streams]
        self._pulses, self._phase = state.pulses.numpy()[streams], state.phase.numpy()[streams]
        self._tail = state.tail.numpy()[streams]
        self._frames = groups // config.groups_per_frame
        # Harmonic layer and flows run one after the other.
        self._flows = _Scratch.of(memory, batch, groups, config.kernel, voice.flows[0].wn, config.group)
        self._harmonic = voice.harmonic and _Scratch.of(
            memory, batch, groups, config.kernel, voice.harmonic, 2 * config.group
        )
        samples = self._frames * config.mel.hop
        self._turn, self._f0_hz = memory.array("turn", samples), memory.array("f0", samples, dtype=np.float64)
        self._blocks = memory.array("blocks", 2, groups + 1, config.group)
        self._source = memory.array("source", batch, groups, config.source_rows)
        self._cond = memory.array("conditioning", batch, groups, config.cond_channels)
        self._both = memory.array("both", groups, 2 * config.group)

    def run(self, windows: Array, x: Array, audio: Array) -> None:
        """Its streams: frames [B, F, M] and noise [B, S, G], which is overwritten, to audio [B, S, G]."""
        voice, config = self.voice, self.voice.config
        windows, x, audio = windows[self.streams], x[self.streams], audio[self.streams]
        self._condition(self._normal(windows, np.float32))
        if voice.pitch:
            self._drive(*self._pitches(self._normal(windows, np.float64)))
        bound = np.float32(config.scale_bound or 0)
        for flow in reversed(voice.flows):
            loops.flow(
                flow.wn, flow.unmix, x, self._cond, self._source, self._past, flow.first, flow.at, bound, *self._flows
            )
        if voice.harmonic is not None and self._harmonic is not None:
            loops.harmonic(voice.harmonic, x, self._cond, self._source, self._harmonic_past, bound, *self._harmonic)
        if voice.scale:
            minus_log = voice.scale[-1].cut(self._rows(self._cond.reshape(-1, config.cond_channels), voice.scale))
            loops.rescale(
                x, minus_log.reshape(x.shape), np.float32(config.mel_scale_bound or 0), np.float32(-MEL_SCALE_MIDDLE)
            )
        if config.squeeze == "lapped":
            loops.overlap_add(x, voice.basis_back, self._tail, self._both, audio)
        else:
            audio[:] = x
        loops.limit(audio, np.float32(config.limiter_knee or 0))

    def _normal(self, windows: Array, precision: type) -> Array:
        config, weights = self.voice.config, self.voice.weights
        low, high = (-np.inf, np.inf) if config.mel_highest is None else (config.mel_lowest, config.mel_highest)
        normal: Array = np.empty(windows.shape, precision)
        loops.normalise(windows, np.float32(low), np.float32(high), weights.mel_mean, weights.mel_std, normal)
        return normal

    def _condition(self, frames: Array) -> None:
        """The conditioning of each group."""
        voice, weights = self.voice, self.voice.weights
        first, *rest = voice.encoder
        h = np.empty((len(frames), max(1, self._frames), len(first.bias)), np.float32)
        loops.context(frames, weights.past_frames - weights.encoder_past, first.weights, first.bias, h)
        rows = h.reshape(-1, len(first.bias))
        if first.silu:
            loops.activate(rows)
        found = voice.encoder[-1].cut(self._rows(rows, rest))
        loops.spread(found.reshape(len(frames), -1, voice.config.cond_channels), self._cond)

    def _rows(self, h: Array, layers: list[_Dense]) -> Array:
        """Rows [n, K] through some layers, with all columns of the last."""
        for layer in layers:
            out = np.empty((len(h), len(layer.bias)), np.float32)
            loops.dense(h, layer.weights, layer.bias, out)
            if layer.silu:
                loops.activate(out)
            h = out
        return h

    def _pitches(self, frames: Array) -> list[Array]:
        """Log f0 and logit of voicing at the centres of the frames and the next one's [B, n + 1]; see step.py."""
        voice, weights, pitch = self.voice, self.voice.weights, self.voice.weights.pitch
        assert pitch is not None
        (first, *rest), count = voice.pitch, self._frames + 1
        h: Array = np.empty((len(frames), count, len(first.bias)))
        loops.context(frames, weights.past_frames - weights.pitch_past, first.weights, first.bias, h)
        h = h.reshape(-1, len(first.bias))
        if first.silu:
            loops.activate64(h)
        for layer in rest:
            out = np.empty((len(h), len(layer.bias)))
            loops.dense(h, layer.weights, layer.bias, out)
            if layer.silu:
                loops.activate64(out)
            if layer.residual:
                loops.add(h, out)
            h = out
        found = [value.numpy().reshape(-1, count) for value in pitch.read_out(torch.from_numpy(rest[-1].cut(h)))]
        if (
            self._frames and self.groups % voice.config.groups_per_frame
        ):  # the last frame's is held, for there is none after it
            for value in found:
                value[:, -1:] = value[:, -2:-1]
        return found

    def _drive(self, log_f0: Array, logit: Array) -> None:
        """The squeezed pulses of every stream, from the pitches [B, n + 1]; phase and last block move on."""
        voice, source = self.voice, self.voice.config.source
        assert source is not None
        mel = voice.config.mel
        for b, rows in enumerate(self._source):
            loops.drive(
                log_f0[b], logit[b], self._phase[b : b + 1], self._pulses[b], self._blocks, self._turn, self._f0_hz, rows,
                voice.basis, float(mel.rate_hz), mel.hop, source.top_hz, float(source.most_harmonics),
            )  # fmt: skip


class CompiledStep:
    """See step.Step. With more than one thread each takes a part of the streams."""

    def __init__(self, voice: CompiledVoice, state: State, groups: int) -> None:
        self._pool = voice.pool
        batch = len(state.tail)
        size = -(-batch // voice.threads)
        parts = [slice(at, min(at + size, batch)) for at in range(0, batch, size)]
        self._parts = [_Part(voice, memory, state, part, groups) for memory, part in zip(voice.memories, parts)]

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """See Step."""
        x = z.clone(memory_format=torch.contiguous_format)
        audio = torch.empty_like(x)
        arrays = windows.contiguous().numpy(), x.numpy(), audio.numpy()
        if self._pool and len(self._parts) > 1:
            list(self._pool.map(lambda part: part.run(*arrays), self._parts))
        else:
            self._parts[0].run(*arrays)
        return audio.flatten(1)
