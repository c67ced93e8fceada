"""The flows of one step, in torch: z and conditioning of B streams by S groups to the squeezed audio, and the streams' state.

This is what CUDA runs and what every other backend is held against (numba_backend.py). What a step needs of memory, and every
view into it, is made once for each shape: a chunk's products are so small that making views would cost more than they do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from glowd.flow.inversion.folding import FlowWeights, Folded, LayerWeights


@dataclass(slots=True)
class State:
    """What B streams remember between chunks."""

    past: Tensor
    """[B, R, C]: the last inputs of every dilated layer of every flow; R is the sum of their reach in groups."""
    tail: Tensor
    """[B, G]: second half of the last lapped group, still to be overlapped. Empty for a polyphase squeeze."""

    def read(self, slots: Tensor, into: "State") -> None:
        """Copy the streams at `slots` [B] into a state of B streams."""
        torch.index_select(self.past, 0, slots, out=into.past)
        torch.index_select(self.tail, 0, slots, out=into.tail)

    def put(self, slots: Tensor, state: "State") -> None:
        """Write B streams to their slots."""
        self.past[slots], self.tail[slots] = state.past, state.tail


class FlowsStep(Protocol):
    """All flows backwards for a fixed number of streams and groups; owns its memory, moves its state on."""

    def __call__(self, z: Tensor, cond: Tensor) -> Tensor:
        """z [B, S, G] float32 and conditioning [B, S, C_cond] -> x [B, S, G] before the mel scale."""


def backwards(weights: Folded, z: Tensor, coupling: Callable[[int, FlowWeights, Tensor], Tensor]) -> Tensor:
    """Every flow's affine map and mixing undone, in float32: z [B, S, G] -> x [B, S, G].

    `coupling`: the number of a flow, its weights and the half of its rows that stays [B * S, n / 2] -> [B * S, n], the
    shift and the minus log-scale of the other half.
    """
    config, rows = weights.config, z.flatten(0, 1)
    early, x = rows[:, : -config.rows[-1]], rows[:, -config.rows[-1] :]
    for number, flow in reversed(list(enumerate(weights.flows))):
        half = x.shape[1] // 2
        shift, minus_log = coupling(number, flow, x[:, :half]).float().chunk(2, 1)
        b = (x[:, half:] - shift).mul_(minus_log.exp())
        x = torch.cat([x[:, :half], b], 1) @ flow.unmix
        if flow.early:
            early, x = early[:, : -config.early_size], torch.cat([early[:, -config.early_size :], x], 1)
    return x.view(z.shape)


@dataclass(frozen=True, slots=True)
class _Views:
    """Where one layer finds its things. The window is shared by all layers, one after the other."""

    past: Tensor  # [B, reach, C] in the state; not causal: the padding [B, reach / 2, C]
    before: Tensor  # the window's beginning, as long: what the layer has seen
    now: Tensor  # [B, S, C] of the window: its input
    after: Tensor  # [B, reach / 2, C], the end of the window: padding, where the layer is not causal
    newest: Tensor  # [B, reach, C], the end of the window: the next chunk's past, where it is
    taps: Tensor  # [B, S, k, C]: for every group the k inputs that the dilated convolution sees
    cond: Tensor  # [B * S, 2C]: the layer's conditioning
    gated: Tensor  # [B * S, C]: its output


class TorchStep:
    """See FlowsStep. Runs on any device, in any precision.

    window    |--- reach: past, or padding ---|------ S: now ------|--- reach / 2: padding, if not causal ---|
    """

    def __init__(self, weights: Folded, state: State, groups: int) -> None:
        config, batch = weights.config, len(state.tail)
        width, kernel, layers = config.channels, config.kernel, config.layers
        rows, longest = batch * groups, (kernel - 1) * 2 ** (layers - 1)

        def scratch(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=weights.dtype, device=weights.device)

        self.weights, self.config, self.state = weights, config, state
        self._cond = scratch(rows, 2 * width * layers * config.flows)
        self._gates, self._gated = scratch(rows, 2 * width), scratch(rows, layers * width)
        self._s_a, self._s_b = self._gates[:, :width], self._gates[:, width:]
        self._h, self._taps = scratch(rows, width), scratch(rows, kernel * width)
        self._h_by_stream = self._h.view(batch, groups, width)
        self._taps_by_tap = self._taps.view(batch, groups, kernel, width)
        self._window = scratch(batch, groups + longest, width)
        self._views = [
            [self._view(layer, flow * layers + i, i, groups) for i, layer in enumerate(step.layers)]
            for flow, step in enumerate(weights.flows)
        ]

    def __call__(self, z: Tensor, cond: Tensor) -> Tensor:
        """See FlowsStep."""
        torch.addmm(self.weights.cond_bias, cond.flatten(0, 1), self.weights.cond_weight, out=self._cond)
        return backwards(self.weights, z, self._coupling)

    def _coupling(self, number: int, flow: FlowWeights, half: Tensor) -> Tensor:
        """See `backwards`."""
        causal = self.config.causal
        torch.addmm(flow.start_bias, half.to(self.weights.dtype), flow.start, out=self._h)
        for layer, view in zip(flow.layers, self._views[number]):
            view.before.copy_(view.past)
            view.now.copy_(self._h_by_stream)
            if not causal:
                view.after.copy_(view.past)
            self._taps_by_tap.copy_(view.taps)
            if causal:
                view.past.copy_(view.newest)
            torch.addmm(view.cond, self._taps, layer.gates, out=self._gates).sigmoid_()
            torch.addcmul(self._s_b, self._s_a, self._s_b, value=-2, out=view.gated)
            if layer.residual is not None:
                self._h.addmm_(view.gated, layer.residual)
        return torch.addmm(flow.end_bias, self._gated, flow.end)

    def _view(self, layer: LayerWeights, number: int, i: int, groups: int) -> _Views:
        width, kernel, causal = self.config.channels, self.config.kernel, self.config.causal
        reach = (kernel - 1) * layer.dilation
        left = reach if causal else reach // 2
        window = self._window[:, : groups + reach]
        stream, row, _ = window.stride()
        return _Views(
            past=self.state.past[:, layer.past] if causal else layer.padding.expand(len(window), left, width),
            before=window[:, :left],
            now=window[:, left : left + groups],
            after=window[:, left + groups :],
            newest=window[:, groups:],
            taps=window.as_strided((len(window), groups, kernel, width), (stream, row, layer.dilation * row, 1)),
            cond=self._cond[:, 2 * width * number : 2 * width * (number + 1)],
            gated=self._gated[:, width * i : width * (i + 1)],
        )
