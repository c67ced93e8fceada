"""One step in torch: frames and noise of B streams to S groups of audio each, and the streams' state.

CUDA runs it, and it is the reference for the other backends (numba_backend.py). Memory and all views into it are made once for
each shape, because a chunk's products are so small that making views would take longer than they do.

    windows -> conditioning of each group, pitches of each frame
    pitches -> pulses -> squeezed, what the source says of each group
    z -> flows backwards -> harmonic layer -> mel scale -> overlap-add of the lapped squeeze -> limiter -> audio
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from glowd.flow.inversion.folding import Folded, LayerWeights, WNWeights
from glowd.flow.inversion.state import State
from glowd.flow.network.bounds import bounded, limited
from glowd.flow.network.conditioning import Linear
from glowd.flow.network.source import free_running, pulses
from glowd.flow.network.waveglow import MEL_SCALE_MIDDLE

FEW_ROWS = 4
"""Products of fewer rows run in another kernel, whose sums have another order; the couplings amplify that tenfold."""


class Step(Protocol):
    """The inversion of a fixed number of streams and groups; owns its memory, moves its state on."""

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """Frames [B, past + n + look_ahead, M], noise [B, S, G] -> audio [B, S * G]: see Inverter.invert."""


class EagerStep(ABC):
    """Everything of a step but the dilated layers of its WNs, in torch calls."""

    def __init__(self, weights: Folded, state: State, groups: int) -> None:
        self.weights, self.config, self.state, self.groups = weights, weights.config, state, groups
        self.batch = len(state.tail)
        self._cond = self.scratch(len(weights.cond_bias))
        self._driven = self.scratch(len(weights.source_bias))

    def scratch(self, *width: int) -> Tensor:
        """Memory of B * S rows."""
        return torch.zeros(self.batch * self.groups, *width, dtype=self.weights.dtype, device=self.weights.device)

    @abstractmethod
    def layers(self, number: int, own: Tensor) -> Tensor:
        """Start and dilated layers of a WN: its own rows [B * S, m] -> gated outputs [B * S, L * C], read at once."""

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """See Step."""
        weights, config = self.weights, self.config
        if config.mel_highest is not None:
            windows = windows.clamp(config.mel_lowest, config.mel_highest)
        cond = self._condition(windows[:, weights.past_frames - weights.encoder_past :])
        torch.addmm(weights.cond_bias, cond.flatten(0, 1), weights.cond_weight, out=self._cond)
        source = self._source(windows).flatten(0, 1).to(weights.dtype)
        torch.addmm(weights.source_bias, source, weights.source_weight, out=self._driven)
        x = self._flows(z.flatten(0, 1))
        if weights.harmonic is not None:
            shift, minus_log = self._affine(len(weights.wns) - 1, x[:, :0])
            x = x * minus_log.exp() + shift
        x = x.view(z.shape)
        if weights.scale:
            minus_log = _products(cond, weights.scale).float()
            x = x * bounded(minus_log, config.mel_scale_bound, -MEL_SCALE_MIDDLE).exp()
        return limited(self._overlap_add(x) if config.squeeze == "lapped" else x.flatten(1), config.limiter_knee)

    def _condition(self, windows: Tensor) -> Tensor:
        """The conditioning of each group [B, S, C_cond]."""
        weights, per_frame = self.weights, self.config.groups_per_frame
        normal = (windows - weights.mel_mean) / weights.mel_std
        h = _rows(normal, weights.encoder_past + 1 + weights.look_ahead_frames).to(weights.dtype)
        h = _products(h, weights.encoder).unflatten(2, (per_frame, -1)).flatten(1, 2)
        if self.groups % per_frame:
            h = torch.cat([h, h[:, -1:]], 1)[:, -self.groups :]
        return h

    def _source(self, windows: Tensor) -> Tensor:
        """The squeezed pulses [B, S, 2G]; phase and last block move on. Behind the last frame is silence."""
        weights, config, state = self.weights, self.config, self.state
        if weights.pitch is None or config.source is None:
            return windows.new_zeros(self.batch, self.groups, 0)
        mel, frames = config.mel, self.groups // config.groups_per_frame
        seen = windows[:, weights.past_frames - weights.pitch_past :][:, : weights.pitch_past + frames + 1]
        rows = _rows(seen.double(), weights.pitch_past + 1)
        pitches = [value.view(self.batch, -1) for value in weights.pitch.on_windows(rows.flatten(0, 1))]
        if frames and self.groups % config.groups_per_frame:  # the last frame's is held, for there is none after it
            pitches = [torch.cat([value[:, :-1], value[:, -2:-1]], 1) for value in pitches]
        source, phase = free_running(pitches[0], pitches[1], state.phase, mel.hop, mel.rate_hz)
        trains = pulses(source, config.source).unflatten(2, (-1, config.group))
        silence = trains.new_zeros(self.batch, 2, self.groups - trains.shape[2], config.group)
        blocks = torch.cat([state.pulses[:, :, None], trains, silence], 2)
        state.phase.copy_(phase)
        state.pulses.copy_(blocks[:, :, -1])
        lapped = torch.cat([blocks[:, :, :-1], blocks[:, :, 1:]], 3)
        return (lapped @ weights.basis.T).transpose(1, 2).flatten(2)

    def _flows(self, rows: Tensor) -> Tensor:
        """Every flow's affine map and mixing undone, in float32: rows of z [B * S, G] -> the same shape."""
        config = self.config
        early, x = rows[:, : -config.rows[-1]], rows[:, -config.rows[-1] :]
        for number, flow in reversed(list(enumerate(self.weights.flows))):
            half = x.shape[1] // 2
            shift, minus_log = self._affine(number, x[:, :half])
            b = (x[:, half:] - shift).mul_(minus_log.exp())
            x = torch.cat([x[:, :half], b], 1) @ flow.unmix
            if flow.early:
                early, x = early[:, : -config.early_size], torch.cat([early[:, -config.early_size :], x], 1)
        return x

    def _affine(self, number: int, own: Tensor) -> tuple[Tensor, Tensor]:
        """The result of a WN on its own rows [B * S, m] and the source: shift and minus log-scale."""
        wn = self.weights.wns[number]
        gated = self.layers(number, own.to(self.weights.dtype))
        shift, minus_log = torch.addmm(wn.end_bias, gated, wn.end).float().chunk(2, 1)
        return shift, bounded(minus_log, self.config.scale_bound)

    def _overlap_add(self, bands: Tensor) -> Tensor:
        """Lapped groups [B, S, G] -> audio [B, S * G], one group late; keeps the new tail."""
        first, second = (bands @ self.weights.basis).chunk(2, 2)
        blocks = first + torch.cat([self.state.tail[:, None], second[:, :-1]], 1)
        self.state.tail.copy_(second[:, -1])
        return blocks.flatten(1)


def _rows(windows: Tensor, frames: int) -> Tensor:
    """[B, n + frames - 1, M] -> the window of each of n frames, oldest first [B, n, frames * M]."""
    return windows.unfold(1, frames, 1).transpose(2, 3).flatten(2)


def _products(x: Tensor, linears: Sequence[Linear]) -> Tensor:
    """[B, n, C] -> [B, n, C']; the result of a row is the same for any n, because streamed must equal offline."""
    rows = x.flatten(0, 1)
    count = len(rows)
    rows = F.pad(rows, (0, 0, 0, max(0, FEW_ROWS - count)))
    for weight, bias, silu in linears:
        rows = F.linear(rows, weight, bias)
        rows = F.silu(rows) if silu else rows
    return rows[:count].unflatten(0, x.shape[:2])


@dataclass(frozen=True, slots=True)
class _Views:
    """The arguments of one layer. The window is shared by all layers, one after the other."""

    past: Tensor  # [B, reach, C] in the state; not causal: the padding [B, reach / 2, C]
    before: Tensor  # the window's beginning, as long: what the layer has seen
    now: Tensor  # [B, S, C] of the window: its input
    after: Tensor  # [B, reach / 2, C], the end of the window: padding, where the layer is not causal
    newest: Tensor  # [B, reach, C], the end of the window: the next chunk's past, where it is
    taps: Tensor  # [B, S, k, C]: for every group the k inputs that the dilated convolution sees
    cond: Tensor  # [B * S, 2C]: the layer's conditioning
    gated: Tensor  # [B * S, C]: its output


class _Memory:
    """The memory of a WN. WNs of one shape share it, one after the other.

    window    |--- reach: past, or padding ---|------ S: now ------|--- reach / 2: padding, if not causal ---|
    """

    def __init__(self, step: EagerStep, width: int, layers: int) -> None:
        kernel, batch, groups = step.config.kernel, step.batch, step.groups
        longest = (kernel - 1) * 2 ** (layers - 1)
        self.width, self.kernel, self.causal, self.groups = width, kernel, step.config.causal, groups
        self.gates, self.gated = step.scratch(2 * width), step.scratch(layers * width)
        self.s_a, self.s_b = self.gates[:, :width], self.gates[:, width:]
        self.h, self.taps = step.scratch(width), step.scratch(kernel * width)
        self.h_by_stream = self.h.view(batch, groups, width)
        self.taps_by_tap = self.taps.view(batch, groups, kernel, width)
        self.window = self.h.new_zeros(batch, groups + longest, width)

    def view(self, layer: LayerWeights, i: int, past: Tensor, cond: Tensor) -> _Views:
        """Layer i of a WN with its part of the state [B, R, C] and its conditioning [B * S, 2C]."""
        reach, width = (self.kernel - 1) * layer.dilation, self.width
        left = reach if self.causal else reach // 2
        window = self.window[:, : self.groups + reach]
        stream, row, _ = window.stride()
        return _Views(
            past=past[:, layer.past] if self.causal else layer.padding.expand(len(window), left, width),
            before=window[:, :left],
            now=window[:, left : left + self.groups],
            after=window[:, left + self.groups :],
            newest=window[:, self.groups :],
            taps=window.as_strided(
                (len(window), self.groups, self.kernel, width), (stream, row, layer.dilation * row, 1)
            ),
            cond=cond,
            gated=self.gated[:, width * i : width * (i + 1)],
        )


class _TorchWN:
    """The layers of one WN, bound to the memory that they work in."""

    def __init__(self, wn: WNWeights, memory: _Memory, past: Tensor, cond: Tensor, driven: Tensor) -> None:
        self.wn, self.memory, self.driven = wn, memory, driven
        conds = cond.split(2 * memory.width, 1)
        self.views = [memory.view(layer, i, past, c) for i, (layer, c) in enumerate(zip(wn.layers, conds))]

    def __call__(self, own: Tensor) -> Tensor:
        memory = self.memory
        torch.addmm(self.driven, own, self.wn.start, out=memory.h)
        for layer, view in zip(self.wn.layers, self.views):
            view.before.copy_(view.past)
            view.now.copy_(memory.h_by_stream)
            if not memory.causal:
                view.after.copy_(view.past)
            memory.taps_by_tap.copy_(view.taps)
            if memory.causal:
                view.past.copy_(view.newest)
            torch.addmm(view.cond, memory.taps, layer.gates, out=memory.gates).sigmoid_()
            torch.addcmul(memory.s_b, memory.s_a, memory.s_b, value=-2, out=view.gated)
            if layer.residual is not None:
                memory.h.addmm_(view.gated, layer.residual)
        return memory.gated


class TorchStep(EagerStep):
    """See Step. Runs on any device, in any precision."""

    def __init__(self, weights: Folded, state: State, groups: int) -> None:
        super().__init__(weights, state, groups)
        memory = _Memory(self, self.config.channels, self.config.layers)
        self._wns = [self._bound(flow.wn, memory, state.past) for flow in weights.flows]
        if self.config.source is not None and weights.harmonic is not None:
            memory = _Memory(self, self.config.source.harmonic_channels, self.config.source.harmonic_layers)
            self._wns.append(self._bound(weights.harmonic, memory, state.harmonic_past))

    def _bound(self, wn: WNWeights, memory: _Memory, past: Tensor) -> _TorchWN:
        return _TorchWN(wn, memory, past, self._cond[:, wn.cond], self._driven[:, wn.source])

    def layers(self, number: int, own: Tensor) -> Tensor:
        """See EagerStep."""
        return self._wns[number](own)
