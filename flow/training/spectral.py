"""How far samples of a voice are from speech: a distance between spectrograms, and an error of their mel.

Source of the first: Gritsenko, Salimans, van den Berg, Snoek & Kalchbrenner 2020, "A Spectral Energy Distance for
Parallel Speech Synthesis", arXiv:2008.01160. For speech x and two samples y, y' of the same mel, from independent latents,

    D(x; y, y') = d(x, y) + d(x, y') - d(y, y')

is, in expectation, smallest where samples are distributed as speech is: the last term keeps them apart. With one sample
D = d(x, y), which asks for the median of all that a mel allows. d compares spectrograms of several resolutions:

    d(a, b) = mean over windows and frames of  rms over bins of (log A - log B)  +  MAGNITUDE_WEIGHT * mean |A - B|

To D may be added the mel error of the samples, mean |log-mel(y) - mel|. A mel is not one of many that fit the speech: it is
a function of it, so speech and every perfect sample have exactly the mel that was asked for, and this term needs no rival.

Rules: tensors in, scalars with a slope out; nothing here knows a network.
"""

import itertools
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from flow.mel import MelFormat
from flow.training.torchmel import log_mel

WINDOWS = (128, 256, 512, 1024, 2048)
"""Samples of the Hann windows; each hops a quarter of itself."""
MAGNITUDE_WEIGHT = 8.0
FLOOR = 2.5e-4
"""Added to magnitudes before the logarithm, about -72 dB of full scale: what lies below counts as silence."""
LIMIT = 1.5
"""Samples beyond it are cut: a young voice can overshoot a thousandfold, and one such sample would be the whole batch."""

Spectrograms = list[tuple[Tensor, Tensor]]
"""For each window magnitude and its logarithm, [B, window / 2 + 1, frames] each."""


@cache
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


def spectrograms(audio: Tensor) -> Spectrograms:
    """Audio [B, T], T > max(WINDOWS) / 2 -> magnitudes over the root of the window's length, and their logarithms."""
    found = []
    for size in WINDOWS:
        stft = torch.stft(audio, size, size // 4, window=_window(size, audio.device), return_complex=True)
        # The root of zero has no slope: hence a little power everywhere.
        magnitude = ((stft.real.square() + stft.imag.square() + 1e-7) / size).sqrt()
        found.append((magnitude, (magnitude + FLOOR).log()))
    return found


def distance(a: Spectrograms, b: Spectrograms) -> Tensor:
    """d of the file's head, a scalar: 0 for equal spectrograms (but for the 1e-3 that smooths the root), symmetric."""
    terms = [
        ((log_a - log_b).square().mean(1) + 1e-6).sqrt().mean() + MAGNITUDE_WEIGHT * (mag_a - mag_b).abs().mean()
        for (mag_a, log_a), (mag_b, log_b) in zip(a, b)
    ]
    return torch.stack(terms).mean()


def energy_distance(audio: Tensor, samples: Sequence[Tensor]) -> Tensor:
    """D of the file's head, a scalar, for speech [B, T] and one or two samples [B, T]."""
    real, *drawn = map(spectrograms, (audio, *(sample.clamp(-LIMIT, LIMIT) for sample in samples)))
    attraction = torch.stack([distance(real, sample) for sample in drawn]).sum()
    repulsion = [distance(a, b) for a, b in itertools.combinations(drawn, 2)]
    return attraction - torch.stack(repulsion).sum() if repulsion else attraction


def mel_error(samples: Tensor, mel: Tensor, format: MelFormat) -> Tensor:
    """Mean absolute difference, in nats, between the log-mel of samples [B, L * hop] and mel [B, M, L]: a scalar.

    Only of frames whose window lies inside: what was around a segment is not known to its samples.
    """
    found = log_mel(samples.clamp(-LIMIT, LIMIT), format, centred=False)
    first = format.n_fft // 2 // format.hop
    return (found - mel[:, :, first : first + found.shape[2]]).abs().mean()
