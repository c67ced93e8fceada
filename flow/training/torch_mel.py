"""The mel front end of mel.py in torch, with a gradient, on any device: for losses of samples and for coloured recordings.

Rules: format and constants are those of mel.py; a test compares the two.
"""

from functools import cache

import torch
from torch import Tensor

from glowd.flow.mel import MelFormat, filter_bank, hann_window


@cache
def _constants(format: MelFormat, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(hann_window(format)).to(device), torch.from_numpy(filter_bank(format)).to(device)


def log_mel(audio: Tensor, format: MelFormat, centred: bool = True) -> Tensor:
    """Audio [B, T] -> log-mel [B, M, T // hop + 1], reflected at both ends as mel.log_mel does.

    Not `centred`: only the frames whose window lies inside, [B, M, (T - n_fft) // hop + 1]; the first is frame n_fft / 2 / hop.
    """
    window, bank = _constants(format, audio.device)
    stft = torch.stft(audio, format.n_fft, format.hop, window=window, center=centred, return_complex=True)
    # The root has no gradient at zero: hence a little power everywhere.
    magnitude = (stft.real.square() + stft.imag.square() + 1e-12).sqrt()
    return (bank @ magnitude).clamp(min=format.log_floor).log()
