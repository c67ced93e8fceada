"""The source of a voice: two pulse trains at the pitch of the mel, a model of the glottis.

Related: neural source-filter models (Wang, Takaki & Yamagishi 2019, arXiv:1904.12088). Here the source is not filtered. It
conditions the flow, as the mel does, and says where in its period a voiced sound is.

    pitch network    log f0, voicing at sample f * hop of each frame f, below called its centre
    between centres  both linear in time; after the last one held
    phase            the running sum of f0 / rate, in cycles, from an offset that a stream's seed gives
    pulses           p = voicing * sqrt(2 / K) * sum of cos(k phase), q the same with sines; k = 1 ... K, K f0 <= top_hz

The phase is summed in float64, within a frame sample by sample and then frame by frame. The order is the same whole
and streamed, so chunking does not change a bit of the result.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from glowd.flow.network.pitch import PitchConfig
from glowd.flow.options import Options, option

SMALLEST = 1e-6
"""Half a phase, in radians, is at least this: below it the sums have reached their limits, K and 0."""


@dataclass(frozen=True, slots=True)
class SourceConfig(Options):
    """The geometry of a source, of the network that finds its pitch, and of the harmonic layer (harmonic.py)."""

    top_hz: float = option(8000.0, "highest frequency of a pulse's harmonics", min=1, max=48000)
    most_harmonics: int = option(80, "largest number of harmonics", min=1, max=1000)
    harmonic_layers: int = option(4, "layers of the harmonic layer's WN", min=1, max=10)
    harmonic_channels: int = option(128, "channels of the harmonic layer's WN", min=1, max=1024)
    pitch: PitchConfig = field(default_factory=PitchConfig)


class Source(NamedTuple):
    """Phase, pitch and voicing of every sample [B, T], from which the pulses are computed."""

    phase: Tensor
    """In cycles; only its fraction counts."""
    f0_hz: Tensor
    voicing: Tensor
    """0 to 1."""


def free_running(log_f0: Tensor, voicing_logit: Tensor, phase: Tensor, hop: int, rate_hz: int) -> tuple[Source, Tensor]:
    """The source of n frames from log f0 and voicing at their centres and at the next one's, [B, n + 1] each.

    `phase`: cycles at the first centre [B], float64. Returns the source [B, n * hop] and the phase at the last centre [B].
    """
    f0_hz = _between(log_f0.double(), hop).exp()
    turns = (f0_hz / rate_hz).cumsum(2)
    centres = torch.cat([phase[:, None], turns[:, :, -1]], 1).cumsum(1)
    cycles = centres[:, :-1, None] + turns
    voicing = torch.sigmoid(_between(voicing_logit, hop))
    return Source(cycles.flatten(1), f0_hz.flatten(1), voicing.flatten(1)), centres[:, -1]


def _between(values: Tensor, hop: int) -> Tensor:
    """[B, n + 1] at frame centres -> [B, n, hop], linear from each centre to the next."""
    share = torch.arange(hop, dtype=values.dtype, device=values.device) / hop
    return values[:, :-1, None] + values.diff(dim=1)[:, :, None] * share


def pulses(source: Source, config: SourceConfig, dtype: torch.dtype = torch.float32) -> Tensor:
    """The pulse trains p and q [B, 2, T], computed in `dtype` from the phase's fraction.

    The sums in closed form (Dirichlet's kernel), h being half the phase: sin(K h) / sin(h) times the cosine and the sine
    of (K + 1) h.
    """
    harmonics = (config.top_hz / source.f0_hz).floor().clamp(1, config.most_harmonics).to(dtype)
    half = math.pi * (source.phase - source.phase.round()).to(dtype)
    half = torch.where(half.abs() < SMALLEST, SMALLEST, half)
    level = source.voicing.to(dtype) * torch.sqrt(2 / harmonics) * torch.sin(harmonics * half) / torch.sin(half)
    angle = (harmonics + 1) * half
    return torch.stack([level * torch.cos(angle), level * torch.sin(angle)], 1)
