"""A voice folded for inversion: everything that does not depend on the frames is computed once, at load.

The definition of the network is waveglow.py; this file is the same arithmetic as matrix products on [B, S, C] (channels
last), with the past of every causal layer in an explicit state. Whole utterances, chunks, CPU and CUDA all run
`invert`; a whole utterance is one large chunk that begins with a fresh state. What it needs of memory, and every view
into it, is made once for each shape (`Workspace`): a chunk's products are so small that making them would cost more.

What is folded:
- inverses of the 1x1 mixing matrices (float32, computed in float64);
- the conditioning of all layers of all flows into one product per group, gate biases included;
- tanh(a) * sigmoid(b) = -(s_b - 2 s_a s_b) with s = sigmoid of (2a, b): one sigmoid over both (a quarter of the price of
  a tanh on a CPU), the factors 2 and -1 into the weights around it;
- residual biases: h' = h + R_i, where R_i is the sum of the biases that layers i, i+1, ... will add, is what runs through
  the layers, so no layer adds a bias. The convolution of layer i gives back W_i R_i in its own bias, and what was zero
  padding for h is the constant R_i for h';
- skip biases into the start, the last layer's skip product into the end, the minus of -log_scale into its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow.conditioning import Linear
from flow.coupling import WN
from flow.squeeze import mdct_basis
from flow.waveglow import Flow, WaveGlow

MAX_WORKSPACES = 64


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


@dataclass(frozen=True, slots=True)
class _Layer:
    gates: Tensor  # [k * C, 2C]
    res_skip: Tensor | None  # [C, 2C]; the last layer's is folded into the end
    padding: Tensor  # [C], the constant R_i
    dilation: int
    past: slice  # its rows in State.past


@dataclass(frozen=True, slots=True)
class _Step:
    start: Tensor  # [n / 2, 2C]
    start_bias: Tensor  # [2C]
    layers: list[_Layer]
    end: Tensor  # [C, n]
    end_last: Tensor  # [C, n]: skip of the last layer, then end
    end_bias: Tensor  # [n]
    unmix: Tensor  # [n, n]
    early: bool


class Inverter:
    """Inverts a WaveGlow: z and conditioning to audio, chunk by chunk or whole."""

    def __init__(self, voice: WaveGlow, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.config, self.device, self.dtype = voice.config, torch.device(device), dtype
        self.steps: list[_Step] = []
        self._workspaces: dict[tuple[int, int], Workspace] = {}
        self.lapped, self.extra_groups = voice.config.squeeze == "lapped", voice.squeeze.extra_groups
        with torch.no_grad():
            self._fold(voice)

    # ---------------------------------------------------------------- running

    def initial_state(self, streams: int) -> State:
        """The state of streams that have heard nothing: every layer's past is its padding."""
        tail = torch.zeros(streams, self.config.group if self.lapped else 0, device=self.device)
        return State(self._rest.expand(streams, -1, -1).clone(), tail)

    def workspace(self, batch: int, groups: int) -> "Workspace":
        """The memory of a step of B streams by S groups; the newest few are kept."""
        key = batch, groups
        if key not in self._workspaces:
            if len(self._workspaces) >= MAX_WORKSPACES:
                self._workspaces.pop(next(iter(self._workspaces)))
            self._workspaces[key] = Workspace(self, batch, groups)
        return self._workspaces[key]

    def invert(self, windows: Tensor, z: Tensor, workspace: "Workspace") -> Tensor:
        """Frames and noise to audio [B, S * G]; the workspace's state moves on by S groups.

        windows: [B, past + n + look_ahead, M] raw frames around the n frames to render; z: [B, S, G], where S is
        n * groups_per_frame, or one more at the end of an utterance if the squeeze is lapped (it repeats the
        conditioning of the last group; S = 1 asks for that one alone).
        With a lapped squeeze the audio lies one group back: its first block overlaps the groups before these.
        """
        batch, groups = z.shape[:2]
        minus_log_scale = self._condition(windows, groups, workspace)
        z = z.flatten(0, 1)
        early, x = z[:, : -self.config.rows[-1]], z[:, -self.config.rows[-1] :]
        for step, views in zip(reversed(self.steps), reversed(workspace.views)):
            shift, minus_log = self._coupling(step, views, x, workspace).float().chunk(2, 1)
            half = x.shape[1] // 2
            b = (x[:, half:] - shift).mul_(minus_log.exp())
            x = torch.cat([x[:, :half], b], 1) @ step.unmix
            if step.early:
                size = self.config.early_size
                early, x = early[:, :-size], torch.cat([early[:, -size:], x], 1)
        x = x.view(batch, groups, -1)
        if minus_log_scale is not None:
            x = x * minus_log_scale.exp()
        return self._overlap_add(x, workspace.state) if self.lapped else x.flatten(1)

    def _condition(self, windows: Tensor, groups: int, workspace: "Workspace") -> Tensor | None:
        """Fill the workspace's conditioning; returns minus the log-scale [B, S, G] (None without a mel scale)."""
        h = windows.unfold(1, self._window_frames, 1).transpose(2, 3).flatten(2).to(self.dtype)
        h = _products(h, self._encoder).unflatten(2, (self.config.groups_per_frame, -1)).flatten(1, 2)
        if groups % self.config.groups_per_frame:
            h = torch.cat([h, h[:, -1:]], 1)[:, -groups:]
        torch.addmm(self._cond_bias, h.flatten(0, 1), self._cond_weight, out=workspace.cond)
        return _products(h, self._scale).float() if self._scale else None

    def _coupling(self, step: "_Step", views: list["_Views"], x: Tensor, workspace: "Workspace") -> Tensor:
        """Rows x [B * S, n] -> [B * S, n]: shift and minus log-scale."""
        w = workspace
        torch.addmm(step.start_bias, x[:, : x.shape[1] // 2].to(self.dtype), step.start, out=w.h_skip)
        for layer, view in zip(step.layers, views):
            view.before.copy_(view.past)
            view.now.copy_(w.h)
            if not self.config.causal:
                view.after.copy_(view.past)
            w.taps_by_tap.copy_(view.taps)
            if self.config.causal:
                view.past.copy_(view.newest)
            torch.addmm(view.cond, w.taps, layer.gates, out=w.gates).sigmoid_()
            torch.addcmul(w.s_b, w.s_a, w.s_b, value=-2, out=w.gated)
            if layer.res_skip is not None:
                w.h_skip.addmm_(w.gated, layer.res_skip)
        return torch.addmm(step.end_bias, w.skip, step.end).addmm_(w.gated, step.end_last)

    def _overlap_add(self, bands: Tensor, state: State) -> Tensor:
        """Lapped groups [B, S, G] -> audio [B, S * G], one group late; keeps the new tail."""
        first, second = (bands @ self._basis).chunk(2, 2)
        blocks = first + torch.cat([state.tail[:, None], second[:, :-1]], 1)
        state.tail.copy_(second[:, -1])
        return blocks.flatten(1)

    # ---------------------------------------------------------------- folding

    def _fold(self, voice: WaveGlow) -> None:
        encoder = voice.encoder
        self._window_frames = encoder.past_frames + 1 + encoder.look_ahead_frames
        self.past_frames, self.look_ahead_frames, self.pad = encoder.past_frames, encoder.look_ahead_frames, encoder.pad
        self._encoder = [self._linear(linear) for linear in encoder.linears()]
        self._scale = [] if voice.scale is None else [self._linear(linear) for linear in _minus_scale(voice.scale)]
        flows = [flow for flow in voice.flows if isinstance(flow, Flow)]
        folded = [_FoldedWN(flow.coupling.wn) for flow in flows]
        self._cond_weight = self._cast(torch.cat([wn.cond_weight for wn in folded]).T)
        self._cond_bias = self._cast(torch.cat([wn.cond_bias for wn in folded]))
        at = 0
        for flow, wn, early in zip(flows, folded, voice.config.early):
            unmix = torch.linalg.inv(flow.mixing.weight.double()).T.float().contiguous().to(self.device)
            self.steps.append(self._step(wn, unmix, early, at))
            at = self.steps[-1].layers[-1].past.stop
        layers = [layer for step in self.steps for layer in step.layers]
        rest = torch.cat([layer.padding.expand(layer.past.stop - layer.past.start, -1) for layer in layers])
        self._rest = rest if voice.config.causal else rest[:0]
        self._basis = mdct_basis(voice.config.group).to(self.device)

    def _step(self, wn: "_FoldedWN", unmix: Tensor, early: bool, at: int) -> _Step:
        layers = []
        for i, (gates, res_skip, padding) in enumerate(zip(wn.gates, wn.res_skip, wn.padding)):
            reach = (self.config.kernel - 1) * 2**i
            past = slice(at, at + reach)
            residual = None if res_skip is None else self._cast(res_skip)
            layers.append(_Layer(self._cast(gates), residual, self._cast(padding), 2**i, past))
            at += reach
        return _Step(
            start=self._cast(wn.start),
            start_bias=self._cast(wn.start_bias),
            layers=layers,
            end=self._cast(wn.end),
            end_last=self._cast(wn.end_last),
            end_bias=self._cast(wn.end_bias),
            unmix=unmix,
            early=early,
        )

    def _cast(self, value: Tensor) -> Tensor:
        return value.detach().to(self.device, self.dtype).contiguous()

    def _linear(self, linear: Linear) -> Linear:
        return self._cast(linear[0]), self._cast(linear[1]), linear[2]


@dataclass(frozen=True, slots=True)
class _Views:
    """Where one layer finds its things in a workspace. The window is shared by all layers, one after the other."""

    past: Tensor  # [B, reach, C] in the state; not causal: the padding [B, reach / 2, C]
    before: Tensor  # the window's beginning, as long: what the layer has seen
    now: Tensor  # [B, S, C] of the window: its input
    after: Tensor  # [B, reach / 2, C], the end of the window: padding, where the layer is not causal
    newest: Tensor  # [B, reach, C], the end of the window: the next chunk's past, where it is
    taps: Tensor  # [B, S, k, C]: for every group the k inputs that the dilated convolution sees
    cond: Tensor  # [B * S, 2C]: the layer's conditioning


class Workspace:
    """Memory for a step of B streams by S groups, and the state that the step moves on. Owner: the inverter's thread.

    window    |--- reach: past, or padding ---|------ S: now ------|--- reach / 2: padding, if not causal ---|
    """

    def __init__(self, inverter: Inverter, batch: int, groups: int) -> None:
        config = inverter.config
        width, kernel, layers = config.channels, config.kernel, config.layers
        rows, longest = batch * groups, (config.kernel - 1) * 2 ** (config.layers - 1)

        def scratch(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=inverter.dtype, device=inverter.device)

        self.state = inverter.initial_state(batch)
        self.cond = scratch(rows, 2 * width * layers * config.flows)
        self.h_skip, self.gates, self.gated = scratch(rows, 2 * width), scratch(rows, 2 * width), scratch(rows, width)
        self.h, self.skip = self.h_skip[:, :width].view(batch, groups, width), self.h_skip[:, width:]
        self.s_a, self.s_b = self.gates[:, :width], self.gates[:, width:]
        self.taps = scratch(rows, kernel * width)
        self.taps_by_tap = self.taps.view(batch, groups, kernel, width)
        self._window = scratch(batch, groups + longest, width)
        self.views = [
            [self._view(inverter, layer, flow * layers + i, groups) for i, layer in enumerate(step.layers)]
            for flow, step in enumerate(inverter.steps)
        ]

    def _view(self, inverter: Inverter, layer: _Layer, number: int, groups: int) -> _Views:
        width, kernel = inverter.config.channels, inverter.config.kernel
        reach = (kernel - 1) * layer.dilation
        causal = inverter.config.causal
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
            cond=self.cond[:, 2 * width * number : 2 * width * (number + 1)],
        )


class _FoldedWN:
    """The weights of one WN as right-hand factors, with the foldings that the head of this file lists."""

    def __init__(self, wn: WN) -> None:
        c, last = wn.channels, len(wn.conv) - 1
        double = torch.cat([torch.full((c,), 2.0), torch.ones(c)])  # 2a inside the gate
        res_skip = [(-weight[:, :, 0], bias) for weight, bias in map(_weights, wn.res_skip)]  # the minus outside it
        residual = torch.stack([bias[:c] for _, bias in res_skip[:-1]] + [torch.zeros(c)])
        skip = sum((bias[-c:] for _, bias in res_skip), torch.zeros(c))
        self.padding = list(residual.flip(0).cumsum(0).flip(0))
        start, start_bias = _weights(wn.start)
        self.start = torch.cat([start[:, :, 0].T, torch.zeros(start.shape[1], c)], 1)
        self.start_bias = torch.cat([start_bias + self.padding[0], skip])
        self.gates, biases = [], []
        for (conv, conv_bias), padding in zip(map(_weights, wn.conv), self.padding):
            weight = conv * double[:, None, None]
            self.gates.append(weight.permute(2, 1, 0).flatten(0, 1))
            biases.append(conv_bias * double - weight.sum(2) @ padding)
        self.res_skip = [weight.T for weight, _ in res_skip[:-1]] + [None]
        end, end_bias = _weights(wn.end)
        sign = torch.cat([torch.ones(len(end_bias) // 2), -torch.ones(len(end_bias) // 2)])
        self.end = (end[:, :, 0] * sign[:, None]).T
        self.end_bias = end_bias * sign
        self.end_last = res_skip[last][0].T @ self.end
        cond, cond_bias = _weights(wn.cond)
        every = double.repeat(last + 1)
        self.cond_weight = cond[:, :, 0] * every[:, None]
        self.cond_bias = cond_bias * every + torch.cat(biases)


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, nn.Conv1d) and layer.bias is not None
    return layer.weight, layer.bias


def _minus_scale(scale: nn.Sequential) -> list[Linear]:
    (first, first_bias), (last, last_bias) = _weights(scale[0]), _weights(scale[2])
    return [(first[:, :, 0], first_bias, True), (-last[:, :, 0], -last_bias, False)]


def _products(x: Tensor, linears: Sequence[Linear]) -> Tensor:
    for weight, bias, silu in linears:
        x = F.linear(x, weight, bias)
        x = F.silu(x) if silu else x
    return x
