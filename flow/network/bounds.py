"""Bounds that keep samples in range on mels unlike those of the training: of log-scales, whose exponentials multiply, and of
the audio.

Rules: elementwise, smooth, and close to the identity for speech. None is no bound.
"""

import torch
from torch import Tensor


def bounded(value: Tensor, bound: float | None, middle: float = 0.0) -> Tensor:
    """middle + bound * tanh((value - middle) / bound): slope 1 at the middle, within +-bound of it everywhere."""
    return value if bound is None else middle + bound * torch.tanh((value - middle) / bound)


def limited(audio: Tensor, knee: float | None) -> Tensor:
    """Samples up to `knee` are unchanged; beyond it a tanh bends them, so that none exceeds full scale (1.0)."""
    if knee is None:
        return audio
    room = 1 - knee
    over = audio.abs() - knee
    return torch.where(over > 0, torch.sign(audio) * (knee + room * torch.tanh(over / room)), audio)
