"""A voice folded for inversion: everything that does not depend on the frames is computed once, at load.

The definition of the network is waveglow.py; this file is the same arithmetic as matrix products on [B, S, C] (channels
last), with the past of every causal layer in an explicit state. Whole utterances, chunks, CPU and CUDA all run
`condition` and `invert`; a whole utterance is one large chunk that begins with a fresh state.

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


@dataclass(slots=True)
class State:
    """What B streams remember between chunks. Owner: whoever calls `invert`, which updates it in place."""

    past: Tensor
    """[B, R, C]: the last inputs of every dilated layer of every flow; R is the sum of their reach in groups."""
    tail: Tensor
    """[B, G]: second half of the last lapped group, still to be overlapped. Empty for a polyphase squeeze."""

    def rows(self, slots: Tensor) -> "State":
        """A copy of the streams at `slots` [B]."""
        return State(self.past[slots], self.tail[slots])

    def put(self, slots: Tensor, state: "State") -> None:
        """Write streams back to their slots."""
        self.past[slots], self.tail[slots] = state.past, state.tail


@dataclass(frozen=True, slots=True)
class _Layer:
    gates: Tensor  # [k * C, 2C]
    res_skip: Tensor  # [C, 2C]; unused in the last layer
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
        self.lapped, self.extra_groups = voice.config.squeeze == "lapped", voice.squeeze.extra_groups
        with torch.no_grad():
            self._fold(voice)

    # ---------------------------------------------------------------- running

    def initial_state(self, streams: int) -> State:
        """The state of streams that have heard nothing: every layer's past is its padding."""
        tail = torch.zeros(streams, self.config.group if self.lapped else 0, device=self.device)
        return State(self._rest.expand(streams, -1, -1).clone(), tail)

    def condition(self, windows: Tensor, groups: int) -> tuple[Tensor, Tensor | None]:
        """Windows of mel frames -> what every one of S groups needs of them.

        windows: [B, past + n + look_ahead, M] raw frames around the n frames to render; groups: S, which is
        n * groups_per_frame, or one more at the end of an utterance if the squeeze is lapped (it repeats the last
        group; S = 1 asks for that one alone).
        Returns conditioning [B, S, flows * layers * 2C] and minus the log-scale [B, S, G] (None without a mel scale).
        """
        h = windows.unfold(1, self._window_frames, 1).transpose(2, 3).flatten(2).to(self.dtype)
        h = _products(h, self._encoder).unflatten(2, (self.config.groups_per_frame, -1)).flatten(1, 2)
        if groups % self.config.groups_per_frame:
            h = torch.cat([h, h[:, -1:]], 1)[:, -groups:]
        cond = F.linear(h, self._cond_weight, self._cond_bias)
        return cond, _products(h, self._scale).float() if self._scale else None

    def invert(self, z: Tensor, cond: Tensor, minus_log_scale: Tensor | None, state: State) -> Tensor:
        """z [B, S, G] and the output of `condition` -> audio [B, S * G]; `state` moves on by S groups.

        With a lapped squeeze the audio lies one group back: its first block overlaps the groups before these.
        """
        batch, groups = z.shape[:2]
        z = z.flatten(0, 1)
        early, x = z[:, : -self.config.rows[-1]], z[:, -self.config.rows[-1] :]
        cond = cond.flatten(0, 1)
        for index, step in reversed(list(enumerate(self._steps))):
            shift, minus_log = self._coupling(step, x, cond, index, state, batch).float().chunk(2, 1)
            half = x.shape[1] // 2
            b = (x[:, half:] - shift).mul_(minus_log.exp())
            x = torch.cat([x[:, :half], b], 1) @ step.unmix
            if step.early:
                size = self.config.early_size
                early, x = early[:, :-size], torch.cat([early[:, -size:], x], 1)
        x = x.view(batch, groups, -1)
        if minus_log_scale is not None:
            x = x * minus_log_scale.exp()
        return self._overlap_add(x, state) if self.lapped else x.flatten(1)

    def _coupling(self, step: _Step, x: Tensor, cond: Tensor, flow: int, state: State, batch: int) -> Tensor:
        """Rows x [B * S, n] -> [B * S, n]: shift and minus log-scale."""
        width = self.config.channels
        h_skip = torch.addmm(step.start_bias, x[:, : x.shape[1] // 2].to(self.dtype), step.start)
        for i, layer in enumerate(step.layers):
            h = h_skip.view(batch, -1, 2 * width)[:, :, :width]
            at = (flow * self.config.layers + i) * 2 * width
            gates = torch.addmm(cond[:, at : at + 2 * width], self._taps(layer, h, state), layer.gates).sigmoid_()
            s_a, s_b = gates[:, :width], gates[:, width:]
            gated = torch.addcmul(s_b, s_a, s_b, value=-2)
            if i + 1 < len(step.layers):
                h_skip.addmm_(gated, layer.res_skip)
        return torch.addmm(step.end_bias, h_skip[:, width:], step.end).addmm_(gated, step.end_last)

    def _taps(self, layer: _Layer, h: Tensor, state: State) -> Tensor:
        """h [B, S, C] -> [B * S, k * C]: for every group the k inputs that the dilated convolution sees."""
        batch, groups, width = h.shape
        reach = (self.config.kernel - 1) * layer.dilation
        if self.config.causal:
            past = state.past[:, layer.past]
            window = torch.cat([past, h], 1)
            past.copy_(window[:, groups:])
        else:
            side = layer.padding.expand(batch, reach // 2, width)
            window = torch.cat([side, h, side], 1)
        strides = ((groups + reach) * width, width, layer.dilation * width, 1)
        taps = window.as_strided((batch, groups, self.config.kernel, width), strides)
        return taps.reshape(batch * groups, self.config.kernel * width)

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
        self._cond_weight = self._cast(torch.cat([wn.cond_weight for wn in folded]))
        self._cond_bias = self._cast(torch.cat([wn.cond_bias for wn in folded]))
        at, self._steps = 0, []
        for flow, wn, early in zip(flows, folded, voice.config.early):
            unmix = torch.linalg.inv(flow.mixing.weight.double()).T.float().contiguous().to(self.device)
            self._steps.append(self._step(wn, unmix, early, at))
            at = self._steps[-1].layers[-1].past.stop
        layers = [layer for step in self._steps for layer in step.layers]
        rest = torch.cat([layer.padding.expand(layer.past.stop - layer.past.start, -1) for layer in layers])
        self._rest = rest if voice.config.causal else rest[:0]
        self._basis = mdct_basis(voice.config.group).to(self.device)

    def _step(self, wn: "_FoldedWN", unmix: Tensor, early: bool, at: int) -> _Step:
        layers = []
        for i, (gates, res_skip, padding) in enumerate(zip(wn.gates, wn.res_skip, wn.padding)):
            reach = (self.config.kernel - 1) * 2**i
            past = slice(at, at + reach)
            layers.append(_Layer(self._cast(gates), self._cast(res_skip), self._cast(padding), 2**i, past))
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
        # The residual half of the last layer is never read; an empty product keeps the layers alike.
        self.res_skip = [weight.T for weight, _ in res_skip[:-1]] + [torch.zeros(0)]
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
