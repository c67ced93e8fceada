"""The dilated layers of a step in torch, on any device and in any precision: what all other backends are held against.

What they need of memory, and every view into it, is made once for each shape: a chunk's products are so small that making
views would cost more than they do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glowd.flow.inversion.folding import Folded, LayerWeights, WNWeights
from glowd.flow.inversion.state import State
from glowd.flow.inversion.step import EagerStep


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
    """See EagerStep."""

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
