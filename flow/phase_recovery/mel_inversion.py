"""From mel bands back to linear magnitudes: the first step of every phase recovery.

Rules: numpy and scipy, no torch, no phase. A frame's result depends on that frame alone, to the last bit, so that a
stream may be cut anywhere and batched with any other.
"""

import numpy as np
from scipy.sparse import csr_array

from glowd.flow.mel import Floats, MelFormat, filter_bank

TINY = np.float32(1e-12)
"""Far below any level that a clamped log-mel can hold; keeps divisions finite."""


class MelInversion:
    """Magnitudes whose mel is the given one, for all frames of a call at once.

    The bands are fewer than the bins, so many spectra fit. Multiplicative updates that lower the Kullback-Leibler
    divergence between given and found bands (Lee & Seung 2001, "Algorithms for non-negative matrix factorization",
    theorem 2, for a fixed basis; in optics Richardson 1972 and Lucy 1974) begin at a smooth spectrum, and, as they only
    scale, stay smooth and non-negative. Least squares as librosa's `mel_to_stft` leave holes between the bands instead.

    Each bin lies under two triangles at most, so the bank is sparse; sparse products also add up in the same order
    whatever the number of frames, which dense ones do not.
    """

    def __init__(self, format: MelFormat, iterations: int = 10) -> None:
        """`iterations` updates for each frame. Raises ValueError for a negative number."""
        if iterations < 0:
            raise ValueError(f"mel inversion: iterations is {iterations}; allowed: at least 0")
        bank = filter_bank(format)
        self.iterations = iterations
        self._to_bands = csr_array(bank)
        self._to_bins = csr_array((bank / np.maximum(bank.sum(axis=0), TINY)).T)
        """Each bin's weighted mean of the bands over it; nothing where there is no band."""
        self._area = np.maximum(bank.sum(axis=1, keepdims=True), TINY)

    def __call__(self, mel: Floats) -> Floats:
        """Log-mel [L, M] -> magnitudes [L, n_fft / 2 + 1]; zero above the highest band."""
        levels = np.exp(np.ascontiguousarray(mel.T))
        magnitudes = self._to_bins @ (levels / self._area)
        for _ in range(self.iterations):
            magnitudes *= self._to_bins @ (levels / np.maximum(self._to_bands @ magnitudes, TINY))
        return np.ascontiguousarray(magnitudes.T)
