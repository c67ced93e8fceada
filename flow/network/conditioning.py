"""From mel frames to the conditioning of every group.

Both kinds read a window of frames around each frame and write `hop / G` groups for it, so both stream the same way:

    frames   past_frames | frame f | look_ahead_frames   ->   groups f * hop / G ... (f + 1) * hop / G - 1

`pad` says what stands outside the utterance. `linears` gives the same map as matrix products on such windows of normalised
frames, [n, (past + 1 + look) * M] -> [n, hop / G * C], which is what inversion runs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Linear = tuple[Tensor, Tensor, bool]
"""Weight [out, in], bias [out], whether SiLU follows."""


class FrameEncoder(nn.Module):
    """The streaming voice's conditioning: three layers on the frames themselves, then one slice of channels per group."""

    past_frames = 3
    pad = "replicate"

    def __init__(
        self, n_mels: int, channels: int, groups_per_frame: int, look_ahead_frames: int, mel_mean: float, mel_std: float
    ) -> None:
        super().__init__()
        self.channels, self.groups_per_frame = channels, groups_per_frame
        self.look_ahead_frames = look_ahead_frames
        self.mel_mean, self.mel_std = mel_mean, mel_std
        self.context = nn.Conv1d(n_mels, 2 * channels, self.past_frames + 1 + look_ahead_frames)
        self.mix = nn.Conv1d(2 * channels, channels, 1)
        self.expand = nn.Conv1d(channels, channels * groups_per_frame, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel [B, M, L] -> [B, C, L * groups_per_frame]."""
        h = F.pad((mel - self.mel_mean) / self.mel_std, (self.past_frames, self.look_ahead_frames), mode=self.pad)
        h = F.silu(self.expand(F.silu(self.mix(F.silu(self.context(h))))))
        # Channel c of the frame's group r is row c * groups_per_frame + r.
        return h.unflatten(1, (self.channels, self.groups_per_frame)).transpose(2, 3).flatten(2)

    def linears(self) -> list[Linear]:
        """The same map on windows of normalised frames."""
        by_group = (self.groups_per_frame, self.channels)
        expand = self.expand.weight[:, :, 0].unflatten(0, by_group[::-1]).transpose(0, 1).flatten(0, 1)
        expand_bias = _bias(self.expand).unflatten(0, by_group[::-1]).transpose(0, 1).flatten()
        return [
            (self.context.weight.transpose(1, 2).flatten(1), _bias(self.context), True),
            (self.mix.weight[:, :, 0], _bias(self.mix), True),
            (expand, expand_bias, True),
        ]


class Upsampler(nn.Module):
    """Stock WaveGlow's conditioning: a transposed convolution to the sample rate, then the squeeze's own grouping.

    Trimmed as published, frame f touches samples f * hop ... f * hop + kernel - 1: history, and no look-ahead.
    """

    look_ahead_frames = 0
    pad = "constant"
    mel_mean, mel_std = 0.0, 1.0

    def __init__(self, n_mels: int, hop: int, group: int, kernel: int) -> None:
        super().__init__()
        self.group, self.hop, self.groups_per_frame = group, hop, hop // group
        self.past_frames = kernel // hop - 1
        self.channels = n_mels * group
        self.upsample = nn.ConvTranspose1d(n_mels, n_mels, kernel, stride=hop)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel [B, M, L] -> [B, M * G, L * groups_per_frame]; channel m * G + r is band m at sample r of the group."""
        wide = self.upsample(mel)[:, :, : mel.shape[2] * self.hop]
        return wide.unflatten(2, (-1, self.group)).permute(0, 1, 3, 2).flatten(1, 2)

    def linears(self) -> list[Linear]:
        """The same map on windows of frames: sample t of a frame sums one tap of each frame in its window."""
        taps = self.upsample.weight.unflatten(2, (self.past_frames + 1, self.groups_per_frame, self.group))
        # [in, out, age, group, phase] -> rows (group, out, phase), columns (frame in window, in); age 0 is the last frame.
        weight = taps.flip(2).permute(3, 1, 4, 2, 0).flatten(3).flatten(0, 2)
        bias = _bias(self.upsample)[None, :, None].expand(self.groups_per_frame, -1, self.group).flatten()
        return [(weight, bias, False)]


Conditioning = FrameEncoder | Upsampler


def _bias(layer: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    return layer.bias if layer.bias is not None else torch.zeros(layer.out_channels)
