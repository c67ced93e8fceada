"""Linear prediction from mel frames: the part of the next sample that follows from the samples before it and the mel.

A mel frame is a smoothed magnitude spectrum. Its square is a power spectrum, whose transform is an autocorrelation, whose
normal equations (Levinson-Durbin) give an all-pole filter and its prediction error: LPCNet takes its predictor from the
features in this way (Valin & Skoglund 2019, arXiv:1810.11846, section 2.2), LP-WaveNet puts it under a WaveNet (Hwang et
al. 2020, arXiv:1811.11913). So the network models only the excitation e, which is nearly white and of unit power:

    x_t = sum_k taps_k x_(t-k) + gain * e_t        with taps and gain constant over one slice of a frame

Nothing here is learned, and the map from x to e is causal with the log-determinant -sum(log gain).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from glowd.flow.mel import Floats, MelFormat, filter_bank, hann_window

NOISE_FLOOR = 1e-4
"""Share of the power added as white noise (-40 dB), which keeps the filter from ringing in what the mel does not show."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predictor of every slice, N = slices: taps [B, N, P] (tap k is that of x_(t-k-1)), gain [B, N], level [B, N].

    `gain` is the expected size of the error, `level` that of the signal, both root mean square.
    """

    taps: Tensor
    gain: Tensor
    level: Tensor


def spectrum_map(format: MelFormat) -> Floats:
    """[n_fft / 2 + 1, M]: log magnitude of every bin from a log-mel frame, linear between the centres of the bands."""
    bank = filter_bank(format)
    bins = np.arange(bank.shape[1])
    centres = (bank @ bins) / bank.sum(1)
    return np.stack([np.interp(bins, centres, row) for row in np.eye(len(bank))], 1).astype(np.float32)


def lag_map(format: MelFormat, order: int) -> NDArray[np.float64]:
    """[n_fft / 2 + 1, order + 1]: autocorrelation from the power spectrum of a windowed frame, per sample, floor included."""
    bins = np.arange(format.n_fft // 2 + 1)
    cosines = np.cos(2 * np.pi / format.n_fft * bins[:, None] * np.arange(order + 1))
    # All bins but the first and the last stand for two of the whole spectrum.
    cosines[1:-1] *= 2
    cosines[:, 0] *= 1 + NOISE_FLOOR
    return cosines / (format.n_fft * np.square(hann_window(format), dtype=np.float64).sum())


class Predictor(torch.nn.Module):
    """Mel [B, M, L] -> the `Prediction` of its slices; fixed tables, no parameters."""

    spectrum: Tensor
    band_area: Tensor
    lags: Tensor

    def __init__(self, format: MelFormat, order: int, slices_per_frame: int) -> None:
        super().__init__()
        self.slices_per_frame = slices_per_frame
        self._centre = format.centre_samples / format.hop
        self.past_frames = 0 if format.centre else 1
        """Frames before a slice's own that it may look at."""
        self.register_buffer("spectrum", torch.from_numpy(spectrum_map(format)), persistent=False)
        area = torch.from_numpy(filter_bank(format).sum(1))
        self.register_buffer("band_area", area.log()[:, None], persistent=False)
        self.register_buffer("lags", torch.from_numpy(lag_map(format, order)), persistent=False)

    def forward(self, mel: Tensor) -> Prediction:
        """[B, M, L] -> N = L * slices_per_frame slices. A frame lies on its centre; the first and the last are held."""
        with torch.autocast(mel.device.type, enabled=False):
            log_magnitude = torch.einsum("fm,bml->blf", self.spectrum, self._between(mel - self.band_area))
            # As double: the normal equations of a narrow formant are nearly singular.
            lags = (2 * log_magnitude).exp().double() @ self.lags
            taps, error = levinson(lags)
        return Prediction(taps.float(), error.sqrt().float(), lags[..., 0].sqrt().float())

    def _between(self, mel: Tensor) -> Tensor:
        """[B, M, L] -> [B, M, L * slices]: each slice takes what lies between its two frames at its own centre."""
        n = self.slices_per_frame
        share = (torch.arange(n, device=mel.device) + 0.5) / n - self._centre
        after = F.pad(mel[:, :, 1:], (0, 1), mode="replicate") if mel.shape[2] > 1 else mel
        later = torch.lerp(mel[..., None], after[..., None], share)
        if not self.past_frames:
            return later.flatten(2)
        before = F.pad(mel[:, :, :-1], (1, 0), mode="replicate") if mel.shape[2] > 1 else mel
        return torch.where(share < 0, torch.lerp(before[..., None], mel[..., None], share + 1), later).flatten(2)


def levinson(lags: Tensor) -> tuple[Tensor, Tensor]:
    """Levinson-Durbin: autocorrelation [..., P + 1] -> taps [..., P] of the best linear predictor, power [...] of its error."""
    error = lags[..., :1]
    taps = lags[..., :0]
    for order in range(lags.shape[-1] - 1):
        reflected = lags[..., order + 1 : order + 2] - (taps * lags[..., 1 : order + 1].flip(-1)).sum(-1, keepdim=True)
        reflection = reflected / error
        taps = torch.cat([taps - reflection * taps.flip(-1), reflection], -1)
        error = error * (1 - reflection.square())
    return taps, error[..., 0]
