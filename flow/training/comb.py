"""How far a voice's tones at multiples of rate / G stand out, as a term of the loss.

A flow that makes G samples at a time can leave tones there, the same in every group: the model bias of WaveGlow (Prenger,
Valle & Catanzaro 2018, arXiv:1811.00002, whose code subtracts it). A distance of spectrograms hardly sees them: each is one
bin of many. Here the level of each multiple is that of its bin of a log-spectrum over the mean of its neighbours, averaged
over time and batch, as in evaluation/metrics.py. C is the mean square of the difference between samples and speech,

    level(y)_k = mean over frames of  log Y_k - mean of log Y near k
    C(x, y)    = mean over k of (level(y)_k - level(x)_k)^2

Harmonics of the speech that happen to lie near a multiple are in both, and cancel.

Rules: tensors in, differentiable scalars out; no network here.
"""

import torch
from torch import Tensor

from glowd.flow.training.spectral import LIMIT, spectrograms

BINS = 4096
"""Samples of the window, at least: rounded up to a multiple of G, so that a multiple of rate / G is the centre of a bin."""
NEAR, FAR = 3, 10
"""Bins between a multiple and its neighbours: beyond the main lobe of the window, and as near as harmonics of speech allow."""


def window_for(group: int) -> int:
    """Samples of the window: a segment must be longer than half of it."""
    return -(-BINS // group) * group


def comb_levels(audio: Tensor, group: int) -> Tensor:
    """Audio [B, T], T > window_for(group) / 2 -> how far each multiple of rate / group below Nyquist stands
    out [group / 2 - 1], in nats of magnitude; 0 for a smooth spectrum of whatever level."""
    spacing = window_for(group) // group
    (found,) = spectrograms(audio, (window_for(group),))
    level = found.log.mean((0, 2))
    teeth = spacing * torch.arange(1, group // 2, device=audio.device)
    near = torch.arange(NEAR, min(FAR, spacing // 2) + 1, device=audio.device)
    around = torch.cat([-near, near])
    return level[teeth] - level[teeth[:, None] + around].mean(1)


def comb_difference(audio: Tensor, samples: Tensor, group: int) -> Tensor:
    """C of the file's head, a scalar, for speech [B, T] and samples [N, T] of the same mels, each mel as often as the others."""
    levels = comb_levels(samples.clamp(-LIMIT, LIMIT), group)
    return (levels - comb_levels(audio, group)).square().mean()
