"""One step: frames and noise of B streams to S groups of audio each, and the streams' state. What a step is, and all of it
that torch and Triton have in common.

    windows -> conditioning of each group, pitches of each frame
    pitches -> pulses -> squeezed, what the source says of each group
    z -> flows backwards -> harmonic layer -> mel scale -> overlap-add of the lapped squeeze -> limiter -> audio
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from glowd.flow.inversion.folding import Folded
from glowd.flow.inversion.state import State
from glowd.flow.network.bounds import bounded, limited
from glowd.flow.network.conditioning import Linear
from glowd.flow.network.source import free_running, pulses
from glowd.flow.network.waveglow import MEL_SCALE_MIDDLE

FEW_ROWS = 4
"""Products of fewer rows run in another kernel, whose sums have another order; the couplings amplify that tenfold."""


class Step(Protocol):
    """The inversion of a fixed number of streams and groups; owns its memory, moves its state on."""

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """Frames [B, past + n + look_ahead, M], noise [B, S, G] -> audio [B, S * G]: see Inverter.invert."""


class EagerStep(ABC):
    """Everything of a step but the dilated layers of its WNs, in torch calls."""

    def __init__(self, weights: Folded, state: State, groups: int) -> None:
        self.weights, self.config, self.state, self.groups = weights, weights.config, state, groups
        self.batch = len(state.tail)
        self._cond = self.scratch(len(weights.cond_bias))
        self._driven = self.scratch(len(weights.source_bias))

    def scratch(self, *width: int) -> Tensor:
        """Memory of B * S rows."""
        return torch.zeros(self.batch * self.groups, *width, dtype=self.weights.dtype, device=self.weights.device)

    @abstractmethod
    def layers(self, number: int, own: Tensor) -> Tensor:
        """Start and dilated layers of a WN: its own rows [B * S, m] -> gated outputs [B * S, L * C], read at once."""

    def __call__(self, windows: Tensor, z: Tensor) -> Tensor:
        """See Step."""
        weights, config = self.weights, self.config
        if config.mel_highest is not None:
            windows = windows.clamp(config.mel_lowest, config.mel_highest)
        cond = self._condition(windows[:, weights.past_frames - weights.encoder_past :])
        torch.addmm(weights.cond_bias, cond.flatten(0, 1), weights.cond_weight, out=self._cond)
        source = self._source(windows).flatten(0, 1).to(weights.dtype)
        torch.addmm(weights.source_bias, source, weights.source_weight, out=self._driven)
        x = self._flows(z.flatten(0, 1))
        if weights.harmonic is not None:
            shift, minus_log = self._affine(len(weights.wns) - 1, x[:, :0])
            x = x * minus_log.exp() + shift
        x = x.view(z.shape)
        if weights.scale:
            minus_log = _products(cond, weights.scale).float()
            x = x * bounded(minus_log, config.mel_scale_bound, -MEL_SCALE_MIDDLE).exp()
        return limited(self._overlap_add(x) if config.squeeze == "lapped" else x.flatten(1), config.limiter_knee)

    def _condition(self, windows: Tensor) -> Tensor:
        """What the frames say about each group [B, S, C_cond]."""
        weights, per_frame = self.weights, self.config.groups_per_frame
        normal = (windows - weights.mel_mean) / weights.mel_std
        h = _rows(normal, weights.encoder_past + 1 + weights.look_ahead_frames).to(weights.dtype)
        h = _products(h, weights.encoder).unflatten(2, (per_frame, -1)).flatten(1, 2)
        if self.groups % per_frame:
            h = torch.cat([h, h[:, -1:]], 1)[:, -self.groups :]
        return h

    def _source(self, windows: Tensor) -> Tensor:
        """The squeezed pulses [B, S, 2G]; phase and last block move on. Behind the last frame is silence."""
        weights, config, state = self.weights, self.config, self.state
        if weights.pitch is None or config.source is None:
            return windows.new_zeros(self.batch, self.groups, 0)
        mel, frames = config.mel, self.groups // config.groups_per_frame
        seen = windows[:, weights.past_frames - weights.pitch_past :][:, : weights.pitch_past + frames + 1]
        rows = _rows(seen.double(), weights.pitch_past + 1)
        pitches = [value.view(self.batch, -1) for value in weights.pitch.on_windows(rows.flatten(0, 1))]
        if frames and self.groups % config.groups_per_frame:  # the last frame's is held, for there is none after it
            pitches = [torch.cat([value[:, :-1], value[:, -2:-1]], 1) for value in pitches]
        source, phase = free_running(pitches[0], pitches[1], state.phase, mel.hop, mel.rate_hz)
        trains = pulses(source, config.source).unflatten(2, (-1, config.group))
        silence = trains.new_zeros(self.batch, 2, self.groups - trains.shape[2], config.group)
        blocks = torch.cat([state.pulses[:, :, None], trains, silence], 2)
        state.phase.copy_(phase)
        state.pulses.copy_(blocks[:, :, -1])
        lapped = torch.cat([blocks[:, :, :-1], blocks[:, :, 1:]], 3)
        return (lapped @ weights.basis.T).transpose(1, 2).flatten(2)

    def _flows(self, rows: Tensor) -> Tensor:
        """Every flow's affine map and mixing undone, in float32: rows of z [B * S, G] -> the same shape."""
        config = self.config
        early, x = rows[:, : -config.rows[-1]], rows[:, -config.rows[-1] :]
        for number, flow in reversed(list(enumerate(self.weights.flows))):
            half = x.shape[1] // 2
            shift, minus_log = self._affine(number, x[:, :half])
            b = (x[:, half:] - shift).mul_(minus_log.exp())
            x = torch.cat([x[:, :half], b], 1) @ flow.unmix
            if flow.early:
                early, x = early[:, : -config.early_size], torch.cat([early[:, -config.early_size :], x], 1)
        return x

    def _affine(self, number: int, own: Tensor) -> tuple[Tensor, Tensor]:
        """What a WN says from its own rows [B * S, m] and the source: shift and minus log-scale."""
        wn = self.weights.wns[number]
        gated = self.layers(number, own.to(self.weights.dtype))
        shift, minus_log = torch.addmm(wn.end_bias, gated, wn.end).float().chunk(2, 1)
        return shift, bounded(minus_log, self.config.scale_bound)

    def _overlap_add(self, bands: Tensor) -> Tensor:
        """Lapped groups [B, S, G] -> audio [B, S * G], one group late; keeps the new tail."""
        first, second = (bands @ self.weights.basis).chunk(2, 2)
        blocks = first + torch.cat([self.state.tail[:, None], second[:, :-1]], 1)
        self.state.tail.copy_(second[:, -1])
        return blocks.flatten(1)


def _rows(windows: Tensor, frames: int) -> Tensor:
    """[B, n + frames - 1, M] -> what is seen with each of n frames, oldest first [B, n, frames * M]."""
    return windows.unfold(1, frames, 1).transpose(2, 3).flatten(2)


def _products(x: Tensor, linears: Sequence[Linear]) -> Tensor:
    """[B, n, C] -> [B, n, C']; what comes out of a row is the same for any n, as streamed == offline needs it."""
    rows = x.flatten(0, 1)
    count = len(rows)
    rows = F.pad(rows, (0, 0, 0, max(0, FEW_ROWS - count)))
    for weight, bias, silu in linears:
        rows = F.linear(rows, weight, bias)
        rows = F.silu(rows) if silu else rows
    return rows[:count].unflatten(0, x.shape[:2])
