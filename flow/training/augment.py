"""Colouring: recordings as other microphones, rooms and codecs would have given them.

A voice that was trained on one studio alone extrapolates on every other spectrum. Its scales are exponentials, so mels of
other recordings then give noise far beyond full scale. A coloured segment has another

    level   LEVEL_DB, but never beyond full scale
    tilt    TILT_DB per octave around PIVOT_HZ
    cut     above a frequency from LOWEST_CUT_HZ to half the rate, steeply, as of lossy codecs: in half of the coloured
            segments

and is rounded to 16 bits again.

Pace: a segment may be played faster or slower, which gives a speaker another pitch and another length of the vocal tract. It is
resampled by a windowed sinc (Smith & Gossett 1984, "A flexible sampling-rate conversion method"), and the phase of its
fundamental with it.

Rules: tensors in, tensors out; random numbers come from a generator whose state can be saved.
"""

import math

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
PACES = (0.85, 1.25)
TAPS = 32
"""Samples that a resampled one is made of."""


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


def paces(chances: Tensor) -> Tensor:
    """Uniform chances [B] in [0, 1) -> paces, float64."""
    return _between(PACES, chances.double())


def _positions(begins: Tensor, pace: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Whole and fractional parts of where each sample [B, length] comes from."""
    at = begins[:, None].double() + torch.arange(length, device=begins.device) * pace[:, None]
    whole = at.floor()
    return whole.long(), (at - whole).float()


def at_pace(audio: Tensor, begins: Tensor, pace: Tensor, length: int) -> Tensor:
    """Recordings [T] int16 from samples `begins` [B] on, at `pace` [B] -> [B, length] on the 16-bit grid in [-1, 1).

    A pace above 1 also removes what would fold back from beyond half of the rate.
    """
    whole, part = _positions(begins, pace, length)
    tap = torch.arange(1 - TAPS // 2, TAPS // 2 + 1, device=audio.device)
    distance = tap - part[..., None]
    cut = (1 / pace.float()).clamp(max=1)[:, None, None]
    weight = cut * torch.sinc(cut * distance) * torch.cos(math.pi * distance / (TAPS + 2)) ** 2
    samples = audio[(whole[..., None] + tap).clamp(0, len(audio) - 1)].float()
    return (samples * weight).sum(-1).round().clamp(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE


def phase_at_pace(phase: Tensor, begins: Tensor, pace: Tensor, length: int) -> Tensor:
    """Phases [T], in cycles from 0 to 1 -> the same of `at_pace` [B, length], linear between samples."""
    whole, part = _positions(begins, pace, length)
    first = phase[whole].float()
    step = torch.remainder(phase[(whole + 1).clamp(max=len(phase) - 1)].float() - first + 0.5, 1) - 0.5
    return torch.remainder(first + part * step, 1)
