"""The mel front end of mel.py in torch, with a gradient, on any device: for losses of samples and for coloured recordings.

Rules: format and constants are those of mel.py; a test compares the two.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from glowd.flow.mel import MelFormat, filter_bank, hann_window


@cache
def _constants(format: MelFormat, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(hann_window(format)).to(device), torch.from_numpy(filter_bank(format)).to(device)


def log_mel(audio: Tensor, format: MelFormat) -> Tensor:
    """Audio [B, T] -> log-mel [B, M, L], L and the reflected ends as in mel.log_mel."""
    edges = format.edge_samples, format.end_samples
    return _frames(F.pad(audio[:, None], edges, mode="reflect")[:, 0], format)


def inner_log_mel(audio: Tensor, format: MelFormat) -> tuple[Tensor, int]:
    """The frames whose window lies inside audio [B, T]: log-mel [B, M, n], and which frame of `log_mel` the first one is."""
    first = -(-format.edge_samples // format.hop)
    return _frames(audio[:, first * format.hop - format.edge_samples :], format), first


def _frames(audio: Tensor, format: MelFormat) -> Tensor:
    """Frames that begin at 0, hop, 2 hop ... of audio [B, T]."""
    window, bank = _constants(format, audio.device)
    # abs of a complex number has the gradient 0 at 0; a root of squares has none there.
    magnitude = torch.stft(audio, format.n_fft, format.hop, window=window, center=False, return_complex=True).abs()
    return (bank @ magnitude).clamp(min=format.log_floor).log()
