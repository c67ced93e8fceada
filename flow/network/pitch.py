"""Pitch and voicing as the mel shows them, causal: what is known of frame f comes from frames f - past ... f, none ahead.

Both are meant at the centre of frame f, sample f * hop. The network sees windows of frames as rows, so that the definition
and a stream run the same function on the same rows. Its sums must not depend on how many rows there are: a phase is the sum
of all pitches before it (source.py) and forgets no rounding.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 4
"""Products of fewer rows run in another kernel, whose sums have another order."""
LOG_HZ, LOG_HZ_SPREAD = 5.3, 0.5
"""Mean and deviation of log f0 [Hz] over speakers: 200 Hz, a third up and down."""
VOICING_STEEPNESS = 2.0


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
    """Windows of frames to log f0 [Hz] and the logit of voicing: one wide layer, then residual ones, SiLU throughout."""

    def __init__(self, config: PitchConfig, n_mels: int, mel_mean: float, mel_std: float) -> None:
        super().__init__()
        self.past_frames, self.mel_mean, self.mel_std = config.past_frames, mel_mean, mel_std
        self.first = nn.Linear((config.past_frames + 1) * n_mels, config.channels)
        self.layers = nn.ModuleList(nn.Linear(config.channels, config.channels) for _ in range(config.layers))
        self.last = nn.Linear(config.channels, 2)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mel [B, M, L] -> log f0 [Hz] and logit of voicing, [B, L] each; the first frame stands for those before it."""
        padded = F.pad(mel, (self.past_frames, 0), mode="replicate")
        windows = padded.unfold(2, self.past_frames + 1, 1).permute(0, 2, 3, 1).flatten(2)
        log_f0, logit = self.on_windows(windows.flatten(0, 1))
        return log_f0.view(len(mel), -1), logit.view(len(mel), -1)

    def on_windows(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of frames f - past ... f [N, (past + 1) * M], oldest first -> log f0 [Hz] and logit of voicing at f, [N] each."""
        h = F.pad((windows - self.mel_mean) / self.mel_std, (0, 0, 0, max(0, FEW_ROWS - len(windows))))
        h = F.silu(self.first(h))
        for layer in self.layers:
            h = h + F.silu(layer(h))
        log_f0, logit = self.last(h)[: len(windows)].unbind(1)
        return LOG_HZ + LOG_HZ_SPREAD * log_f0, VOICING_STEEPNESS * logit
