"""Distances between samples of a voice and speech: one of spectrograms, and the error of their mel.

Source of the first: Gritsenko, Salimans, van den Berg, Snoek & Kalchbrenner 2020, "A Spectral Energy Distance for
Parallel Speech Synthesis", arXiv:2008.01160. For speech x and two samples y, y' of the same mel, from independent latents,

    D(x; y, y') = d(x, y) + d(x, y') - d(y, y')

is, in expectation, smallest where samples are distributed as speech is: the last term keeps them apart. With one sample
D = d(x, y), which is smallest for the median of all signals that a mel allows. d compares spectrograms of several resolutions:

    d(a, b) = mean over windows and frames of  rms over bins of (log A - log B)  +  MAGNITUDE_WEIGHT * mean |A - B|

The windows are given in samples at 22,050 Hz; at other rates they are longer or shorter by a power of two (`windows_at`).

A spectrogram does not show whether a voice gives the same phases for every latent. A voice that does can choose them only
frame by frame, and buzzes at multiples of the frame rate and of rate / group. A mel does not determine the phase, so two
independent samples of speech agree in phase no more than by chance. The agreement of two samples is P, and may be added to D:

    P(y, y') = mean of cos(arg Y - arg Y'),   in expectation |E exp(i arg Y)|^2 >= 0, and 0 for speech

The mel error of the samples, mean |log-mel(y) - mel|, may be added to D as well. A mel is a function of the speech, so every
perfect sample has exactly the mel that it was rendered from, and this term needs no repulsion.

Rules: tensors in, differentiable scalars out; no network here.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from glowd.flow.mel import MelFormat
from glowd.flow.training.torch_mel import inner_log_mel

WINDOWS = (128, 256, 512, 1024, 2048)
"""Samples of the Hann windows at WINDOWS_HZ; each hops a quarter of itself."""
WINDOWS_HZ = 22050
MAGNITUDE_WEIGHT = 8.0
FLOOR = 2.5e-4
"""Added to magnitudes before the logarithm, about -72 dB of full scale: lower levels count as silence."""
LIMIT = 1.5
"""Samples beyond it are clipped: early in training one can overshoot a thousandfold, and would dominate its batch."""

PHASE_WINDOWS = slice(1, 4)
"""Of WINDOWS, those in which phases are compared: as long as a pitch period and no longer than a frame."""


def windows_at(rate_hz: int) -> tuple[int, ...]:
    """Samples of the windows at any rate: those of WINDOWS times the power of two that keeps their seconds best.

    So they are WINDOWS from 16 to 31 kHz, twice that at 32 to 62 kHz.
    """
    octaves = round(math.log2(rate_hz / WINDOWS_HZ))
    return tuple(round(size * 2.0**octaves) for size in WINDOWS)


class Spectrogram(NamedTuple):
    """Of one window: [B, window / 2 + 1, frames] each, over the root of the window's length."""

    stft: Tensor
    magnitude: Tensor
    log: Tensor


Spectrograms = list[Spectrogram]
"""One for each window."""


@cache
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


def spectrograms(audio: Tensor, windows: Sequence[int] = WINDOWS) -> Spectrograms:
    """Audio [B, T], T > max(windows) / 2 -> its spectrograms."""
    found = []
    for size in windows:
        stft = torch.stft(audio, size, size // 4, window=_window(size, audio.device), return_complex=True)
        # The root has no gradient at zero: hence a little power everywhere.
        magnitude = ((stft.real.square() + stft.imag.square() + 1e-7) / size).sqrt()
        found.append(Spectrogram(stft / size**0.5, magnitude, (magnitude + FLOOR).log()))
    return found


def distance(a: Spectrograms, b: Spectrograms) -> Tensor:
    """d of the file's head, a scalar: 0 for equal spectrograms (but for the 1e-3 that smooths the root), symmetric."""
    terms = [
        ((one.log - other.log).square().mean(1) + 1e-6).sqrt().mean()
        + MAGNITUDE_WEIGHT * (one.magnitude - other.magnitude).abs().mean()
        for one, other in zip(a, b)
    ]
    return torch.stack(terms).mean()


def phase_agreement(a: Spectrograms, b: Spectrograms) -> Tensor:
    """P of the file's head, a scalar, -1 to 1. It is the average of two means: one of all cells with equal weights, and one
    of all frames in which cells are weighted by the root of both magnitudes."""
    terms = []
    for one, other in list(zip(a, b))[PHASE_WINDOWS]:
        product = one.magnitude * other.magnitude
        cosine = (one.stft.real * other.stft.real + one.stft.imag * other.stft.imag) / (product + 1e-5)
        weight = product.sqrt()
        terms += [cosine.mean(), ((cosine * weight).sum(1) / weight.sum(1)).mean()]
    return torch.stack(terms).mean()


def energy_distance(
    audio: Tensor, samples: Sequence[Tensor], phase_weight: float = 0.0, windows: Sequence[int] = WINDOWS
) -> Tensor:
    """D + phase_weight * P of the file's head, a scalar, for speech [B, T] and one or two samples [B, T].

    With one sample there are no two phases to compare, and the weight has no effect.
    """
    signals = (audio, *(sample.clamp(-LIMIT, LIMIT) for sample in samples))
    real, *drawn = (spectrograms(signal, windows) for signal in signals)
    attraction = torch.stack([distance(real, sample) for sample in drawn]).sum()
    repulsion = [distance(a, b) - phase_weight * phase_agreement(a, b) for a, b in itertools.combinations(drawn, 2)]
    return attraction - torch.stack(repulsion).sum() if repulsion else attraction


def mel_error(samples: Tensor, mel: Tensor, format: MelFormat) -> Tensor:
    """Mean absolute difference, in nats, between the log-mel of samples [B, L * hop] and mel [B, M, L]: a scalar.

    Only of frames whose window lies inside the segment: the samples have no context outside it.
    """
    found, first = inner_log_mel(samples.clamp(-LIMIT, LIMIT), format)
    return (found - mel[:, :, first : first + found.shape[2]]).abs().mean()
