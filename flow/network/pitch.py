"""Pitch and voicing as the mel shows them, causal: what is known of frame f comes from frames f - past ... f, none ahead.

Both are meant at the centre of frame f, sample f * hop. A phase is the sum of all pitches before it (source.py) and forgets
no rounding; so that a stream, in whatever cuts and whatever backend, sums the very numbers of the definition, the products
run in float64, and their result is rounded once.

The network is a list of layers on rows, one for each frame: any backend runs `layers` on windows of normalised frames, and
gives their last result to `read_out`.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

LOG_HZ, LOG_HZ_SPREAD = 5.3, 0.5
"""Mean and deviation of log f0 [Hz] over speakers: 200 Hz, two thirds more or less."""
VOICING_STEEPNESS = 2.0


class Layer(NamedTuple):
    """Rows h -> h @ weight.T + bias, then SiLU, then h added, if it is so."""

    weight: Tensor  # [out, in]
    bias: Tensor  # [out]
    silu: bool
    residual: bool


@dataclass(frozen=True, slots=True)
class PitchConfig:
    """The geometry of a pitch network."""

    past_frames: int = 4
    channels: int = 160
    layers: int = 2

    def __post_init__(self) -> None:
        for name, low in (("past_frames", 0), ("channels", 1), ("layers", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"pitch network: {name} is {getattr(self, name)}; allowed: at least {low}")

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "PitchConfig":
        """The inverse of `asdict`; raises ValueError for an unknown key or an impossible value."""
        known = [f.name for f in fields(cls)]
        if unknown := table.keys() - set(known):
            raise ValueError(f"unknown setting {min(unknown)!r} of a pitch network; known: {', '.join(known)}")
        return cls(**table)


class PitchNetwork(nn.Module):
    """Windows of frames to log f0 [Hz] and the logit of voicing: one wide layer, then residual ones."""

    def __init__(self, config: PitchConfig, n_mels: int, mel_mean: float, mel_std: float) -> None:
        super().__init__()
        self.past_frames, self.mel_mean, self.mel_std = config.past_frames, mel_mean, mel_std
        self.first = nn.Linear((config.past_frames + 1) * n_mels, config.channels)
        self.residual = nn.ModuleList(nn.Linear(config.channels, config.channels) for _ in range(config.layers))
        self.last = nn.Linear(config.channels, 2)

    def layers(self) -> list[Layer]:
        """From windows of normalised frames [N, (past + 1) * M], oldest first, to what `read_out` reads."""
        inner = [layer for layer in self.residual if isinstance(layer, nn.Linear)]
        return [
            Layer(self.first.weight, self.first.bias, True, False),
            *(Layer(layer.weight, layer.bias, True, True) for layer in inner),
            Layer(self.last.weight, self.last.bias, False, False),
        ]

    def read_out(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The last layer's rows [N, 2] -> log f0 [Hz] and logit of voicing, float32, [N] each."""
        log_f0, logit = h.unbind(1)
        return (LOG_HZ + LOG_HZ_SPREAD * log_f0).float(), (VOICING_STEEPNESS * logit).float()

    def on_windows(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Frames f - past ... f as rows [N, (past + 1) * M] -> log f0 [Hz] and logit of voicing at f, [N] each.

        In the precision of the windows. Where a phase is summed up from it, that has to be float64.
        """
        h = (windows - self.mel_mean) / self.mel_std
        for layer in self.layers():
            out = F.linear(h, layer.weight.to(h.dtype), layer.bias.to(h.dtype))
            out = F.silu(out) if layer.silu else out
            h = h + out if layer.residual else out
        return self.read_out(h)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mel [B, M, L] -> log f0 [Hz] and logit of voicing, [B, L] each; the first frame stands for those before it."""
        padded = F.pad(mel, (self.past_frames, 0), mode="replicate")
        windows = padded.unfold(2, self.past_frames + 1, 1).permute(0, 2, 3, 1).flatten(2)
        log_f0, logit = self.on_windows(windows.flatten(0, 1))
        return log_f0.view(len(mel), -1), logit.view(len(mel), -1)
