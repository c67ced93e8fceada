"""The published WaveGlow for tests: random weights, every form of file they were distributed in, and their samples.

`infer` follows the paper and the published model's behaviour on raw weights; it shares no code with flow/. `Layout` and
`as_module` give the same weights in any layout that the published code has had.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Raw = dict[str, Tensor]


@dataclass(frozen=True)
class Geometry:
    """What WaveGlow.__init__ is given in the published code."""

    n_mel_channels: int = 20
    n_flows: int = 5
    n_group: int = 8
    n_early_every: int = 2
    n_early_size: int = 2
    n_layers: int = 3
    n_channels: int = 16
    kernel_size: int = 3
    upsample_kernel: int = 1024
    stride: int = 256

    @property
    def rows(self) -> list[int]:
        """Channels at each flow."""
        return [self.n_group - k // self.n_early_every * self.n_early_size for k in range(self.n_flows)]

    @property
    def config(self) -> dict[str, Any]:
        """As DeepLearningExamples stores it."""
        outer = ("n_mel_channels", "n_flows", "n_group", "n_early_every", "n_early_size")
        inner = ("n_layers", "n_channels", "kernel_size")
        return {k: getattr(self, k) for k in outer} | {"WN_config": {k: getattr(self, k) for k in inner}}


STOCK = Geometry(80, 12, 8, 4, 2, 8, 256)


def random_weights(g: Geometry, seed: int = 0) -> Raw:
    """Weights in the newest layout, weight norm folded, such that the signal keeps its size."""
    torch.manual_seed(seed)
    c, raw = g.n_channels, {}
    convolutions = {"upsample": (g.n_mel_channels, g.n_mel_channels, g.upsample_kernel)}
    for k, n in enumerate(g.rows):
        raw[f"convinv.{k}.conv.weight"] = torch.linalg.qr(torch.randn(n, n))[0][..., None] * 1.05
        convolutions |= {f"WN.{k}.start": (c, n // 2, 1), f"WN.{k}.end": (n, c, 1)}
        convolutions[f"WN.{k}.cond_layer"] = (2 * c * g.n_layers, g.n_mel_channels * g.n_group, 1)
        for i in range(g.n_layers):
            convolutions[f"WN.{k}.in_layers.{i}"] = (2 * c, c, g.kernel_size)
            convolutions[f"WN.{k}.res_skip_layers.{i}"] = (c if i == g.n_layers - 1 else 2 * c, c, 1)
    for name, shape in convolutions.items():
        raw[name + ".weight"] = torch.randn(shape) / (shape[1] * shape[2]) ** 0.5 * (0.3 if ".end" in name else 1)
        raw[name + ".bias"] = torch.randn(shape[0]) * 0.1
    return raw


def infer(raw: Raw, g: Geometry, mel: Tensor, z: Tensor) -> Tensor:
    """Mel [B, M, L], z [B, G, S] (sigma included; early outputs on top in the order of the flows) -> audio [B, L * 256]."""
    spect = F.conv_transpose1d(mel, raw["upsample.weight"], raw["upsample.bias"], stride=g.stride)
    spect = spect[:, :, : -(g.upsample_kernel - g.stride)]
    batch, _, samples = spect.shape
    groups = samples // g.n_group
    spect = spect.reshape(batch, g.n_mel_channels, groups, g.n_group).transpose(2, 3).reshape(batch, -1, groups)
    x, waiting = z[:, g.n_group - g.rows[-1] :], z[:, : g.n_group - g.rows[-1]]
    for k in range(g.n_flows - 1, -1, -1):
        half = x.shape[1] // 2
        b, s = _wn(raw, f"WN.{k}.", g, x[:, :half], spect).split(half, 1)
        x = torch.cat([x[:, :half], (x[:, half:] - b) / s.exp()], 1)
        x = F.conv1d(x, raw[f"convinv.{k}.conv.weight"][:, :, 0].inverse()[:, :, None])
        if k and k % g.n_early_every == 0:
            x = torch.cat([waiting[:, -g.n_early_size :], x], 1)
            waiting = waiting[:, : -g.n_early_size]
    return x.transpose(1, 2).reshape(batch, -1)


def _wn(raw: Raw, wn: str, g: Geometry, x: Tensor, spect: Tensor) -> Tensor:
    def conv(name: str, h: Tensor, dilation: int = 1) -> Tensor:
        weight, bias = raw[f"{wn}{name}.weight"], raw[f"{wn}{name}.bias"]
        return F.conv1d(h, weight, bias, padding=dilation * (weight.shape[2] // 2), dilation=dilation)

    c, h, total = g.n_channels, conv("start", x), torch.zeros(())
    cond = conv("cond_layer", spect)
    for i in range(g.n_layers):
        gates = conv(f"in_layers.{i}", h, 2**i) + cond[:, 2 * c * i : 2 * c * (i + 1)]
        out = conv(f"res_skip_layers.{i}", gates[:, :c].tanh() * gates[:, c:].sigmoid())
        if i < g.n_layers - 1:
            h = h + out[:, :c]
            out = out[:, c:]
        total = total + out
    return conv("end", total)


# The same weights as modules and files.


@contextmanager
def glow_module(name: str = "glow") -> Iterator[types.ModuleType]:
    """A module with the published classes, importable only inside the block: outside, pickles of them cannot load."""
    module = types.ModuleType(name)
    for cls in ("WaveGlow", "WN", "Invertible1x1Conv"):
        setattr(module, cls, type(cls, (nn.Module,), {"__module__": name}))
    sys.modules[name] = module
    try:
        yield module
    finally:
        del sys.modules[name]


@dataclass(frozen=True)
class Layout:
    """The layout of a file: `old_cond` a list of conditioning layers, `old_res` separate residual and skip layers,
    `norm` one of "folded", "g and v", "parametrized"."""

    old_cond: bool = False
    old_res: bool = False
    norm: str = "g and v"


def as_module(glow: types.ModuleType, raw: Raw, g: Geometry, layout: Layout) -> nn.Module:
    """The published module tree."""
    model = glow.WaveGlow()
    for name in ("n_flows", "n_group", "n_early_every", "n_early_size"):
        setattr(model, name, getattr(g, name))
    model.n_remaining_channels = g.rows[-1]
    model.upsample = nn.ConvTranspose1d(g.n_mel_channels, g.n_mel_channels, g.upsample_kernel, stride=g.stride)
    _fill(model.upsample, raw, "upsample")
    model.WN = nn.ModuleList(_wn_module(glow, raw, f"WN.{k}.", g, layout) for k in range(g.n_flows))
    model.convinv = nn.ModuleList(_mixing_module(glow, raw, k) for k in range(g.n_flows))
    return model


def _mixing_module(glow: types.ModuleType, raw: Raw, k: int) -> nn.Module:
    mixing, weight = glow.Invertible1x1Conv(), raw[f"convinv.{k}.conv.weight"]
    mixing.conv = nn.Conv1d(len(weight), len(weight), 1, bias=False)
    mixing.conv.weight.data = weight.clone()
    # The published `infer` stores this; it must not be used.
    mixing.W_inverse = torch.full_like(weight, 9.0)
    return mixing


def _wn_module(glow: types.ModuleType, raw: Raw, wn: str, g: Geometry, layout: Layout) -> nn.Module:
    module = glow.WN()
    module.n_layers, module.n_channels, c = g.n_layers, g.n_channels, g.n_channels
    module.start, module.end = _conv(raw, wn + "start", layout.norm), _conv(raw, wn + "end", "folded")
    layers = range(g.n_layers)
    module.in_layers = nn.ModuleList(_conv(raw, f"{wn}in_layers.{i}", layout.norm, 2**i) for i in layers)
    if layout.old_cond:
        slices = [slice(2 * c * i, 2 * c * (i + 1)) for i in layers]
        module.cond_layers = nn.ModuleList(_conv(raw, wn + "cond_layer", layout.norm, rows=rows) for rows in slices)
    else:
        module.cond_layer = _conv(raw, wn + "cond_layer", layout.norm)
    names = [f"{wn}res_skip_layers.{i}" for i in layers]
    if layout.old_res:
        module.res_layers = nn.ModuleList(_conv(raw, name, layout.norm, rows=slice(0, c)) for name in names[:-1])
        module.skip_layers = nn.ModuleList(_conv(raw, name, layout.norm, rows=slice(-c, None)) for name in names)
    else:
        module.res_skip_layers = nn.ModuleList(_conv(raw, name, layout.norm) for name in names)
    return module


def _conv(raw: Raw, name: str, norm: str, dilation: int = 1, rows: slice = slice(None)) -> nn.Module:
    weight = raw[name + ".weight"][rows]
    out_channels, in_channels, kernel = weight.shape
    conv: Any = nn.utils.skip_init(nn.Conv1d, in_channels, out_channels, kernel, dilation=dilation)
    _fill(conv, raw, name, rows)
    if norm == "g and v":
        conv = torch.nn.utils.weight_norm(conv)
        conv.weight_v.data *= 1.7  # the direction's length has no effect
    elif norm == "parametrized":
        conv = torch.nn.utils.parametrizations.weight_norm(conv)
        conv.parametrizations.weight.original1.data *= 1.7
    module: nn.Module = conv
    return module


def _fill(conv: nn.Module, raw: Raw, name: str, rows: slice = slice(None)) -> None:
    conv.weight.data, conv.bias.data = raw[name + ".weight"][rows].clone(), raw[name + ".bias"][rows].clone()
