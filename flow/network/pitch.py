"""Pitch and voicing from the mel. The network is causal: the values of frame f depend on frames f - past ... f.

Both hold at sample f * hop: the centre of frame f, or half a hop before it where the format is not centred. A phase is the
sum of all pitches before it (source.py), so rounding errors add up. The products therefore run in float64, and their result is
rounded once: every chunking and every backend then sums the same numbers.

Log f0 is read from a distribution over pitches (as in CREPE, Kim, Salamon, Li & Bello 2018, arXiv:1802.06182): a frame whose
octave is in doubt gets one of the two pitches; a regression would give a pitch between them. The read-out is a mean and not a
maximum, because a maximum jumps where two values are nearly equal.

The network is a list of layers on rows, one row for each frame. A backend runs `layers` on windows of normalised frames and
passes the last result to `read_out`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.network.initial import initial
from glowd.flow.options import Options, option

LOG_HZ, LOG_HZ_SPREAD = 5.3, 0.5
"""Mean and deviation of log f0 [Hz] over speakers: 200 Hz, two thirds more or less."""
VOICING_STEEPNESS = 2.0
SHARPNESS = 2.0
"""Power of the distribution over pitches whose mean is read: a neighbour of half the probability counts a quarter."""


class Layer(NamedTuple):
    """Rows h -> h @ weight.T + bias; then SiLU if `silu`; then h is added if `residual`."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out]
    silu: bool
    residual: bool


@dataclass(frozen=True, slots=True)
class PitchConfig(Options):
    """The geometry of a pitch network."""

    past_frames: int = option(4, "frames before a frame that its pitch depends on", min=0, max=64)
    channels: int = option(160, "channels of a layer", min=1, max=4096)
    layers: int = option(2, "residual layers", min=0, max=32)
    bins: int = option(
        0, "pitches of the distribution, evenly spaced in log f0; 0: log f0 is one output", min=0, max=4096
    )
    low_hz: float = option(55.0, "lowest pitch of the distribution", above=0, max=48000)
    high_hz: float = option(700.0, "highest pitch of the distribution", above=0, max=48000)

    def check(self) -> None:
        """Raise OptionError where values contradict one another."""
        self.require("low_hz", self.low_hz < self.high_hz, f"below high_hz, {self.high_hz:g}")


def log_pitches(config: PitchConfig) -> Tensor:
    """The logarithm of the pitch in Hz that each bin stands for [bins], in float64."""
    return torch.linspace(math.log(config.low_hz), math.log(config.high_hz), config.bins, dtype=torch.float64)


class PitchNetwork(nn.Module):
    """Windows of frames to log f0 [Hz] and the logit of voicing: one wide layer, then residual ones."""

    bins: Tensor | None
    """Log pitches [bins], float64."""

    def __init__(self, config: PitchConfig, n_mels: int, mel_mean: float, mel_std: float) -> None:
        super().__init__()
        self.past_frames, self.mel_mean, self.mel_std = config.past_frames, mel_mean, mel_std
        self.first = nn.Linear((config.past_frames + 1) * n_mels, config.channels)
        self.residual = nn.ModuleList(nn.Linear(config.channels, config.channels) for _ in range(config.layers))
        self.last = nn.Linear(config.channels, (config.bins or 1) + 1)
        bins = initial((config.bins,), lambda: log_pitches(config)) if config.bins else None
        self.register_buffer("bins", bins, persistent=False)

    def layers(self) -> list[Layer]:
        """From windows of normalised frames [N, (past + 1) * M], oldest first, to the input of `read_out`."""
        inner = [layer for layer in self.residual if isinstance(layer, nn.Linear)]
        return [
            Layer(self.first.weight, self.first.bias, True, False),
            *(Layer(layer.weight, layer.bias, True, True) for layer in inner),
            Layer(self.last.weight, self.last.bias, False, False),
        ]

    def read_out(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's rows [N, (bins or 1) + 1] -> log f0 [Hz] and logit of voicing, float32, [N] each."""
        pitches, logit = h[:, :-1], h[:, -1]
        if self.bins is None:
            log_f0 = LOG_HZ + LOG_HZ_SPREAD * pitches[:, 0]
        else:
            log_f0 = (torch.softmax(SHARPNESS * pitches, 1) * self.bins.to(h.dtype)).sum(1)
        return log_f0.float(), (VOICING_STEEPNESS * logit).float()

    def on_windows(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Frames f - past ... f as rows [N, (past + 1) * M] -> log f0 [Hz] and logit of voicing at f, [N] each.

        Computed in the precision of the windows, which must be float64 if a phase is summed from the result.
        """
        return self.read_out(self.scores(windows))

    def scores(self, windows: Tensor) -> Tensor:
        """The same rows -> what `read_out` reads, [N, (bins or 1) + 1]: of each pitch, and of voicing."""
        h = (windows - self.mel_mean) / self.mel_std
        for layer in self.layers():
            out = F.linear(h, layer.weight.to(h.dtype), layer.bias.to(h.dtype))
            out = F.silu(out) if layer.silu else out
            h = h + out if layer.residual else out
        return h

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mel [B, M, L] -> log f0 [Hz] and logit of voicing, [B, L] each; the first frame is repeated before the beginning."""
        padded = F.pad(mel, (self.past_frames, 0), mode="replicate")
        windows = padded.unfold(2, self.past_frames + 1, 1).permute(0, 2, 3, 1).flatten(2)
        log_f0, logit = self.on_windows(windows.flatten(0, 1))
        return log_f0.view(len(mel), -1), logit.view(len(mel), -1)
