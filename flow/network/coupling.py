"""The two invertible layers of a flow step: 1x1 mixing (Glow, Kingma & Dhariwal 2018) and affine coupling on a WN.

Each has `forward` (audio to z, with its log-determinant) and `inverse` (z to audio) over the same parameters.
Mixing and the affine map keep the precision of their input, float32 in use, whatever precision the convolutions run in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.network.bounds import bounded
from glowd.flow.network.initial import initial


def rotation(channels: int) -> Tensor:
    """A random rotation [C, C]."""
    found = torch.linalg.qr(torch.randn(channels, channels))[0]
    if torch.det(found) < 0:  # a reflection
        found[:, 0] *= -1
    return found.contiguous()


class Mixing(nn.Module):
    """Invertible 1x1 convolution: x -> weight @ x, weight [C, C], started as a random rotation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial((channels, channels), lambda: rotation(channels)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S] -> the same shape, log-determinant [B]."""
        log_det = x.shape[2] * torch.linalg.slogdet(self.weight)[1]
        return torch.einsum("ij,bjs->bis", self.weight, x), log_det.expand(x.shape[0])

    def inverse(self, x: Tensor) -> Tensor:
        """[B, C, S] -> the same shape."""
        return torch.einsum("ij,bjs->bis", torch.linalg.inv(self.weight), x)


class WN(nn.Module):
    """WaveNet-like network of a coupling: gated dilated convolutions with residual and skip (WaveGlow, section 2.1).

    [B, inputs, S] and conditioning [B, C_cond, S] -> shift and log-scale of n rows, [B, n, S] each. Causal: it pads on the
    left only.
    """

    def __init__(
        self, inputs: int, n: int, channels: int, cond_channels: int, layers: int, kernel: int, causal: bool
    ) -> None:
        super().__init__()
        self.channels, self.kernel, self.causal = channels, kernel, causal
        self.start, self.end = nn.Conv1d(inputs, channels, 1), nn.Conv1d(channels, 2 * n, 1)
        self.cond = nn.Conv1d(cond_channels, 2 * channels * layers, 1)
        self.conv = nn.ModuleList(nn.Conv1d(channels, 2 * channels, kernel, dilation=2**i) for i in range(layers))
        self.res_skip = nn.ModuleList(
            nn.Conv1d(channels, channels * (2 if i < layers - 1 else 1), 1) for i in range(layers)
        )
        # A coupling starts as the identity.
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]  # Conv1d has a bias here

    def padding(self, layer: int) -> tuple[int, int]:
        """Groups of zeros left and right of the input of a layer."""
        reach = (self.kernel - 1) * 2**layer
        return (reach, 0) if self.causal else (reach // 2, reach // 2)

    def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """[B, inputs, S], [B, C_cond, S] -> shift [B, n, S], log-scale [B, n, S]."""
        h, skip = self.start(x), torch.zeros(())
        last = len(self.conv) - 1
        for i, (conv, res_skip, c) in enumerate(zip(self.conv, self.res_skip, self.cond(cond).chunk(last + 1, 1))):
            a, b = (conv(F.pad(h, self.padding(i))) + c).chunk(2, 1)
            r = res_skip(torch.tanh(a) * torch.sigmoid(b))
            if i < last:
                h, r = h + r[:, : self.channels], r[:, self.channels :]
            skip = r if i == 0 else skip + r
        shift, log_scale = self.end(skip).chunk(2, 1)
        return shift, log_scale


class Coupling(nn.Module):
    """Affine coupling: the first half of the rows and the source set shift and scale of the second half.

    `bound`: limit of the absolute log-scale; None: no bound.
    """

    def __init__(self, wn: WN, bound: float | None = None) -> None:
        super().__init__()
        self.wn, self.bound = wn, bound

    def forward(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """x [B, C, S], conditioning [B, C_cond, S], source [B, Q, S], Q may be 0 -> x's shape, log-determinant [B]."""
        a, b = x.chunk(2, 1)
        shift, log_scale = self._affine(a, cond, source, autocast)
        return torch.cat([a, b * log_scale.exp() + shift], 1), log_scale.sum((1, 2))

    def inverse(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> Tensor:
        """[B, C, S] -> the same shape."""
        a, b = x.chunk(2, 1)
        shift, log_scale = self._affine(a, cond, source, autocast)
        return torch.cat([a, (b - shift) * (-log_scale).exp()], 1)

    def _affine(self, a: Tensor, cond: Tensor, source: Tensor, autocast: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(a.device.type, torch.bfloat16, enabled=autocast):
            shift, log_scale = self.wn(torch.cat([a, source], 1), cond)
        return shift.to(a.dtype), bounded(log_scale.to(a.dtype), self.bound)
