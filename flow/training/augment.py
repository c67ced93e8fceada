"""Colouring: recordings as other microphones, rooms and codecs would have given them.

A voice that was trained on one studio alone extrapolates on every other spectrum. Its scales are exponentials, so mels of
other recordings then give noise far beyond full scale. A coloured segment has another

    level   LEVEL_DB, but never beyond full scale
    tilt    TILT_DB per octave around PIVOT_HZ
    cut     above a frequency from LOWEST_CUT_HZ to half the rate, steeply, as of lossy codecs: in half of the coloured
            segments

and is rounded to 16 bits again. Rules: tensors in, tensors out; random numbers come from a generator whose state can be saved.
"""

import torch
from torch import Tensor

from glowd.flow.mel import MelFormat

LEVEL_DB = (-24.0, 6.0)
TILT_DB = (-4.0, 4.0)
PIVOT_HZ = 1000.0
LOWEST_CUT_HZ = 2500.0
STEEP_DB = 90.0
"""Attenuation above the cut."""
FULL_SCALE = 32768


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Random numbers for `count` segments: [count, 5] uniform in [0, 1): whether, level, tilt, whether to cut, where."""
    return torch.rand(count, 5, generator=generator)


def coloured(audio: Tensor, chances: Tensor, share: float, format: MelFormat) -> Tensor:
    """Audio [B, T] on the 16-bit grid in [-1, 1) -> the same shape and grid; about `share` of the segments are coloured.

    `chances`: of `draw`, one row for each segment.
    """
    chosen = chances[:, 0] < share
    if not chosen.any():
        return audio
    changed = _filtered(audio[chosen], chances[chosen].to(audio.device), format.rate_hz)
    peak = changed.abs().amax(1, keepdim=True).clamp(min=1e-9)
    changed = changed * (0.99 / peak).clamp(max=1)
    grid = (changed * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE
    return audio.index_copy(0, chosen.nonzero()[:, 0].to(audio.device), grid)


def _filtered(audio: Tensor, chances: Tensor, rate_hz: int) -> Tensor:
    _, level, tilt, cuts, where = chances.T[:, :, None]
    hz = torch.fft.rfftfreq(audio.shape[1], 1 / rate_hz, device=audio.device)[None].clamp(min=20)
    gain_db = _between(LEVEL_DB, level) + _between(TILT_DB, tilt) * (hz / PIVOT_HZ).log2()
    gain_db = gain_db - STEEP_DB * (cuts < 0.5) * (hz > _between((LOWEST_CUT_HZ, rate_hz / 2), where))
    return torch.fft.irfft(torch.fft.rfft(audio) * 10 ** (gain_db / 20), n=audio.shape[1])


def _between(limits: tuple[float, float], share: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * share
