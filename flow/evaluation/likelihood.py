"""The likelihood that a network gives to a whole recording, as validation in training measures it.

The recording is taken on its grid of 16 bits, without the noise of dequantisation. A voice with a source is told the phase of
the recording's fundamental.
"""

import numpy as np
import torch

from glowd.flow.mel import Floats, MelFormat, log_mel
from glowd.flow.network.registry import Network
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.training.data import FULL_SCALE, Batch
from glowd.flow.training.locked_phase import locked_phase
from glowd.flow.training.objective import likelihood


@torch.no_grad()
def nll(network: Network, audio: Floats, format: MelFormat) -> float:
    """Negative log-likelihood of samples [L * hop], in nats per sample, without the constant log(2 pi) / 2."""
    grid = (np.rint(audio * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1) / FULL_SCALE).astype(np.float32)
    mel = torch.from_numpy(log_mel(grid, format)[: len(grid) // format.hop].T.copy())[None]
    batch = Batch(torch.from_numpy(grid)[None], mel, _phase(network, grid, mel, format.rate_hz))
    return likelihood(network.nll, network, batch, False).item()


def _phase(network: Network, audio: Floats, mel: torch.Tensor, rate_hz: int) -> torch.Tensor | None:
    """Of the fundamental, in cycles [1, T]; None for a network without a source."""
    source = network.free_source(mel) if isinstance(network, WaveGlow) else None
    if source is None:
        return None
    cycles = locked_phase(audio, source.f0_hz[0].numpy(), source.voicing[0].numpy(), rate_hz)
    return torch.from_numpy(np.remainder(cycles, 1.0)).float()[None]
