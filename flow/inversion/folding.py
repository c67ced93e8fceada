"""A voice folded for inversion: everything that does not depend on the frames is computed once, at load.

Weights come out as right-hand factors of matrix products on rows of channels ([S, C] @ [C, N]). What is folded:

- inverses of the 1x1 mixing matrices (float32, computed in float64);
- the conditioning of all layers of all flows into one product per group, gate biases included;
- tanh(a) * sigmoid(b) = -(s_b - 2 s_a s_b) with s = sigmoid of (2a, b): one sigmoid over both (a quarter of the cost of
  a tanh on a CPU), the factors 2 and -1 into the weights around it;
- residual biases: h' = h + R_i, where R_i is the sum of the biases that layers i, i+1, ... will add, replaces h in
  the layers, so no layer adds a bias. The bias of layer i subtracts W_i R_i, and zero padding of h becomes the constant R_i
  of h';
- the skip path: the end reads nothing but a sum of skips, and every skip is a product, so skip and end are one matrix
  [C, n] for each layer. A flow ends in one product over the gated outputs of all its layers, [L * C] -> [n];
- the minus of -log_scale into the weights it comes from;
- what the source adds to the first layers of all couplings and of the harmonic layer: one product for each group too.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glowd.flow.inversion.state import State
from glowd.flow.network.conditioning import Linear
from glowd.flow.network.coupling import WN
from glowd.flow.network.squeeze import mdct_basis
from glowd.flow.network.waveglow import Flow, WaveGlow, WaveGlowConfig


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One gated dilated layer of a WN."""

    gates: Tensor  # [k * C, 2C], tap by tap
    residual: Tensor | None  # [C, C]; the last layer has none
    padding: Tensor  # [C], the constant R_i
    dilation: int
    past: slice  # its rows in State.past, or harmonic_past


@dataclass(frozen=True, slots=True)
class WNWeights:
    """One WN that turns m rows, and the source's, into shift and minus log-scale of n / 2 rows."""

    start: Tensor  # [m, C]; the harmonic layer reads the source alone, m = 0
    source: slice  # its C columns of Folded.source_weight and source_bias, which holds its start's bias too
    cond: slice  # its L * 2C columns of Folded.cond_weight and cond_bias
    layers: list[LayerWeights]
    end: Tensor  # [L * C, n]: gated outputs of all layers -> shift, minus log-scale
    end_bias: Tensor  # [n]

    @property
    def rest(self) -> Tensor:
        """[R, C]: the past of a new stream: the padding of every layer."""
        return torch.cat([layer.padding.expand(layer.past.stop - layer.past.start, -1) for layer in self.layers])


@dataclass(frozen=True, slots=True)
class FlowWeights:
    """One flow that works on n rows."""

    wn: WNWeights
    unmix: Tensor  # [n, n], float32
    early: bool  # whether early rows join after it


class Folded:
    """The weights of a voice on a device; convolutions in `dtype`, pitch and the affine path in float32."""

    def __init__(self, voice: WaveGlow, device: torch.device, dtype: torch.dtype) -> None:
        self.config: WaveGlowConfig = voice.config
        self.device, self.dtype = device, dtype
        flows = [flow for flow in voice.flows if isinstance(flow, Flow)]
        encoder, pitch = voice.encoder, voice.pitch
        self.encoder_past, self.look_ahead_frames, self.pad = (
            encoder.past_frames,
            encoder.look_ahead_frames,
            encoder.pad,
        )
        self.pitch_past = 0 if pitch is None else pitch.past_frames
        self.mel_mean, self.mel_std = encoder.mel_mean, encoder.mel_std
        with torch.no_grad():
            self.encoder = [self._linear(linear) for linear in voice.encoder.linears()]
            self.scale = [] if voice.scale is None else [self._linear(linear) for linear in _minus_scale(voice.scale)]
            self.pitch = None if pitch is None else copy.deepcopy(pitch).to(device).double().requires_grad_(False)
            self.basis = mdct_basis(voice.config.group).to(device)
            wns = [flow.coupling.wn for flow in flows] + ([] if voice.harmonic is None else [voice.harmonic.wn])
            folded = [_FoldedWN(wn, voice.config.source_rows) for wn in wns]
            self.cond_weight = self._cast(torch.cat([wn.cond_weight for wn in folded]).T)  # [C_cond, sum of L * 2C]
            self.cond_bias = self._cast(torch.cat([wn.cond_bias for wn in folded]))
            self.source_weight = self._cast(torch.cat([wn.source for wn in folded], 1))  # [Q, sum of C]
            self.source_bias = self._cast(torch.cat([wn.start_bias for wn in folded]))
            self.wns = self._wns(folded)
            unmix = [torch.linalg.inv(flow.mixing.weight.double()).T.float().contiguous().to(device) for flow in flows]
            self.flows = [FlowWeights(*parts) for parts in zip(self.wns, unmix, voice.config.early)]
            self.harmonic = None if voice.harmonic is None else self.wns[-1]

    @property
    def past_frames(self) -> int:
        """Frames before a chunk that its windows hold."""
        return max(self.encoder_past, self.pitch_past)

    def rest(self, streams: int) -> State:
        """The state of new streams; their phases are 0."""
        flows = torch.cat([flow.wn.rest for flow in self.flows])
        harmonic = flows[:0] if self.harmonic is None else self.harmonic.rest
        group, lapped = self.config.group, self.config.squeeze == "lapped"

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(streams, *shape, device=self.device)

        return State(
            past=(flows if self.config.causal else flows[:0]).expand(streams, -1, -1).clone(),
            harmonic_past=harmonic.expand(streams, -1, -1).clone(),
            pulses=zeros(2, 0 if self.harmonic is None else group),
            phase=zeros().double(),
            tail=zeros(group if lapped else 0),
        )

    def _wns(self, folded: list["_FoldedWN"]) -> list[WNWeights]:
        """The WN of each flow, with its columns and rows in the shared tensors; the harmonic layer has a past of its own."""
        wns, source, cond, past = list[WNWeights](), 0, 0, 0
        for number, wn in enumerate(folded):
            width, wide = len(wn.start_bias), len(wn.cond_bias)
            past = 0 if number == self.config.flows else past
            layers = self._layers(wn, past)
            past = layers[-1].past.stop
            ends = self._cast(wn.end), self._cast(wn.end_bias)
            places = slice(source, source + width), slice(cond, cond + wide)
            wns.append(WNWeights(self._cast(wn.start), *places, layers, *ends))
            source, cond = source + width, cond + wide
        return wns

    def _layers(self, wn: "_FoldedWN", at: int) -> list[LayerWeights]:
        layers = []
        for i, (gates, residual, padding) in enumerate(zip(wn.gates, wn.residual, wn.padding)):
            reach = (self.config.kernel - 1) * 2**i
            cast = None if residual is None else self._cast(residual)
            layers.append(LayerWeights(self._cast(gates), cast, self._cast(padding), 2**i, slice(at, at + reach)))
            at += reach
        return layers

    def _cast(self, value: Tensor) -> Tensor:
        return value.detach().to(self.device, self.dtype).contiguous()

    def _linear(self, linear: Linear) -> Linear:
        return self._cast(linear[0]), self._cast(linear[1]), linear[2]


class _FoldedWN:
    """The weights of one WN, with the foldings that the head of this file lists."""

    def __init__(self, wn: WN, source_rows: int) -> None:
        c, last = wn.channels, len(wn.conv) - 1
        double = torch.cat([torch.full((c,), 2.0), torch.ones(c)])  # 2a inside the gate
        res_skip = [(-weight[:, :, 0].T, bias) for weight, bias in map(_weights, wn.res_skip)]  # the minus outside it
        residual_biases = torch.stack([bias[:c] for _, bias in res_skip[:-1]] + [torch.zeros(c)])
        self.padding = list(residual_biases.flip(0).cumsum(0).flip(0))
        self.residual = [weight[:, :c] for weight, _ in res_skip[:-1]] + [None]
        start, start_bias = _weights(wn.start)
        own = start.shape[1] - source_rows  # the source's rows come last
        self.start, self.source = start[:, :own, 0].T, start[:, own:, 0].T
        self.start_bias = start_bias + self.padding[0]
        self.gates, biases = [], []
        for (conv, conv_bias), padding in zip(map(_weights, wn.conv), self.padding):
            weight = conv * double[:, None, None]
            self.gates.append(weight.permute(2, 1, 0).flatten(0, 1))
            biases.append(conv_bias * double - weight.sum(2) @ padding)
        end, end_bias = _weights(wn.end)
        sign = torch.cat([torch.ones(len(end_bias) // 2), -torch.ones(len(end_bias) // 2)])
        end = (end[:, :, 0] * sign[:, None]).T
        self.end = torch.cat([weight[:, -c:] for weight, _ in res_skip]) @ end
        self.end_bias = end_bias * sign + sum((bias[-c:] for _, bias in res_skip), torch.zeros(c)) @ end
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
