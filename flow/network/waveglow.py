"""WaveGlow (Prenger, Valle & Catanzaro 2018, arXiv:1811.00002): the definition of the network, and nothing else.

One class covers all voices: the published geometry (polyphase squeeze, non-causal WN, transposed-convolution
conditioning), the streaming one (lapped squeeze, mel-conditioned scale, causal WN, frame encoder), and the streaming one with
a source: pulses at the mel's pitch (source.py), which the harmonic layer and all couplings read.

    forward   audio -> squeeze -> scale -> harmonic? -> {early output?, mixing, coupling} x flows -> z, log-determinant
    inverse   the same list of layers, walked backwards; then the limiter, if there is one

Symbols: B batch, M mel bins, L mel frames, T = L * hop samples, G group size, S groups (T / G, or one more when lapped).
Rows of z [B, G, S]: early outputs first, in the order the forward pass emits them, then what remains.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.mel import MelFormat
from glowd.flow.network.bounds import bounded, limited
from glowd.flow.network.conditioning import Conditioning, FrameEncoder, Upsampler
from glowd.flow.network.coupling import WN, Coupling, Mixing
from glowd.flow.network.harmonic import HarmonicLayer
from glowd.flow.network.pitch import PitchConfig, PitchNetwork
from glowd.flow.network.source import Source, SourceConfig, free_running, pulses
from glowd.flow.network.squeeze import SQUEEZES
from glowd.flow.options import Options, option

MEL_SCALE_MIDDLE = 3.0
"""Middle of a bounded mel scale, in nats; on speech the scale lies between -1 and 7."""


@dataclass(frozen=True, slots=True)
class WaveGlowConfig(Options):
    """The geometry of a voice. Stands inside its checkpoint. Defaults are the first streaming voice; see `sourced`, `stock`.

    Bounds (None: no bound) keep samples in range on mels unlike those of the training (bounds.py). Upper limits hold what a
    network costs: they are some times what any published WaveGlow needs.
    """

    squeeze: str = option("lapped", "transform of G samples to a group", choices=tuple(SQUEEZES))
    group: int = option(64, "samples of a group", min=1, max=1024)
    flows: int = option(12, "flows", min=1, max=64)
    early_every: int = option(4, "flows between two early outputs", min=1, max=64)
    early_size: int = option(16, "rows of an early output", min=1, max=512)
    layers: int = option(4, "layers of a WN; layer i has the dilation 2^i, in groups", min=1, max=10)
    channels: int = option(96, "channels of a WN", min=1, max=1024)
    kernel: int = option(3, "taps of a layer; odd", min=1, max=15)
    causal: bool = option(True, "whether a WN sees no later groups")
    conditioning: str = option("frames", "network from mel frames to groups", choices=("frames", "upsample"))
    cond_channels: int = option(96, "channels of the conditioning", min=1, max=16384)
    look_ahead_frames: int = option(1, "frames after a frame that its conditioning depends on", min=0, max=64)
    upsample_kernel: int = option(1024, "samples of the kernel of an upsampling conditioning", min=1, max=16384)
    mel_scale: bool = option(True, "whether the mel scales the groups before the flows")
    mel_mean: float = option(-5.6, "mean of the mel that the network normalises with", min=-100, max=100)
    mel_std: float = option(2.1, "standard deviation of the mel that the network normalises with", above=0, max=100)
    sigma: float = option(0.8, "standard deviation of the latents that a voice speaks with", min=0, max=2)
    source: SourceConfig | None = None
    scale_bound: float | None = option(
        None, "bound of the log-scales of couplings and harmonic layer", above=0, max=100
    )
    mel_scale_bound: float | None = option(
        None, "bound of the mel's log-scale around MEL_SCALE_MIDDLE, in nats", above=0, max=100
    )
    mel_highest: float | None = option(None, "mel values above it are lowered to it", max=100)
    limiter_knee: float | None = option(None, "samples beyond it are bent to stay below 1", above=0, below=1)
    mel: MelFormat = field(default_factory=MelFormat)

    @classmethod
    def sourced(cls, **changes: Any) -> "WaveGlowConfig":
        """The streaming voice with a source, and bounded: what new trainings begin with."""
        source = SourceConfig(pitch=PitchConfig(past_frames=12, channels=256, layers=3, bins=176))
        new: dict[str, Any] = dict(
            source=source, scale_bound=2.0, mel_scale_bound=7.0, mel_highest=2.5, limiter_knee=0.9, sigma=0.3
        )
        return cls(**new | changes)

    @classmethod
    def stock(cls, channels: int = 256, **changes: Any) -> "WaveGlowConfig":
        """The published geometry: G = 8, 12 flows of 8 layers, early output of 2 rows every 4 flows."""
        published: dict[str, Any] = dict(
            squeeze="polyphase", group=8, early_size=2, layers=8, channels=channels, causal=False,
            conditioning="upsample", cond_channels=640, look_ahead_frames=0, mel_scale=False, sigma=0.6,
        )  # fmt: skip
        return cls(**published | changes)

    def check(self) -> None:
        """Raise OptionError where values do not fit together."""
        hop = self.mel.hop
        self.require("mel", self.mel.is_for_voices, "a format of 8000 to 96000 Hz")
        self.require("group", hop % self.group == 0, f"a divisor of the hop, {hop}")
        self.require("kernel", self.kernel % 2 == 1, "odd")
        even = all(n >= 2 and n % 2 == 0 for n in self.rows)
        self.require("early_size", even, "such that every flow keeps an even number of rows")
        spans = self.mel_highest is None or self.mel_highest > self.mel_lowest
        self.require("mel_highest", spans, f"above {self.mel_lowest:.2f}, the logarithm of log_floor")
        if self.source is not None:
            streams = self.squeeze == "lapped" and self.causal and self.conditioning == "frames"
            self.require(
                "source",
                streams and self.look_ahead_frames >= 1,
                "none, unless squeeze is lapped, causal is true, conditioning is frames and look_ahead_frames at least 1",
            )
        if self.conditioning == "upsample":
            self.require("upsample_kernel", self.upsample_kernel % hop == 0, f"a multiple of the hop, {hop}")
            expected = self.mel.n_mels * self.group
            self.require("cond_channels", self.cond_channels == expected, f"n_mels * group, {expected}")

    @property
    def early(self) -> list[bool]:
        """Whether rows leave before flow i."""
        return [i > 0 and i % self.early_every == 0 for i in range(self.flows)]

    @property
    def rows(self) -> list[int]:
        """Rows that flow i works on."""
        early = self.early
        return [self.group - self.early_size * sum(early[: i + 1]) for i in range(self.flows)]

    @property
    def mel_lowest(self) -> float:
        """The lowest value of a mel: the logarithm of the format's floor."""
        return math.log(self.mel.log_floor)

    @property
    def source_rows(self) -> int:
        """Rows of the squeezed source: those of two pulse trains, or none."""
        return 0 if self.source is None else 2 * self.group

    @property
    def groups_per_frame(self) -> int:
        """Groups that one mel frame covers."""
        return self.mel.hop // self.group

    @property
    def reach_groups(self) -> int:
        """One-sided receptive field of the whole inversion, in groups: flows * sum of the layers' reach.

        A harmonic layer reads the source alone, beside the flows, and its block before.
        """
        one_wn = (self.kernel - 1) * (2**self.layers - 1)
        flows = self.flows * (one_wn if self.causal else one_wn // 2)
        if self.source is None:
            return flows
        return 1 + max(flows, (self.kernel - 1) * (2**self.source.harmonic_layers - 1))


class Flow(nn.Module):
    """One step: mixing, then coupling."""

    def __init__(self, rows: int, config: WaveGlowConfig) -> None:
        super().__init__()
        self.mixing = Mixing(rows)
        wn = WN(
            rows // 2 + config.source_rows, rows // 2,
            config.channels, config.cond_channels, config.layers, config.kernel, config.causal,
        )  # fmt: skip
        self.coupling = Coupling(wn, config.scale_bound)

    def forward(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """[B, rows, S] -> the same shape, log-determinant [B]."""
        x, mixed = self.mixing(x)
        x, scaled = self.coupling(x, cond, source, autocast)
        return x, mixed + scaled

    def inverse(self, x: Tensor, cond: Tensor, source: Tensor, autocast: bool = False) -> Tensor:
        """[B, rows, S] -> the same shape."""
        return self.mixing.inverse(self.coupling.inverse(x, cond, source, autocast))


class _LayerInputs(NamedTuple):
    """What layers read beside the groups: conditioning [B, C_cond, S], the mel's log-scale, the squeezed source."""

    cond: Tensor
    log_scale: Tensor | None
    source: Tensor


class WaveGlow(nn.Module):
    """The network. `forward(audio, mel)` gives z and log-determinant, `inverse(z, mel)` gives the audio back.

    A voice with a source needs it in both: `forward` takes the recording's own, whose phase is that of its fundamental;
    `inverse` takes one whose phase is free-running, `free_source`. The pitch network is part of the voice, but its training
    is separate.
    """

    def __init__(self, config: WaveGlowConfig) -> None:
        super().__init__()
        self.config = config
        self.squeeze = SQUEEZES[config.squeeze](config.group)
        self.encoder: Conditioning = _conditioning(config)
        self.scale = nn.Sequential(
            nn.Conv1d(config.cond_channels, 256, 1), nn.SiLU(), nn.Conv1d(256, config.group, 1)
        ) if config.mel_scale else None  # fmt: skip
        self.pitch: PitchNetwork | None = None
        self.harmonic: HarmonicLayer | None = None
        if config.source is not None:
            self.pitch = PitchNetwork(config.source.pitch, config.mel.n_mels, config.mel_mean, config.mel_std)
            self.pitch.requires_grad_(False)
            self.harmonic = _harmonic(config, config.source)
        self.flows = nn.ModuleList(Flow(rows, config) for rows in config.rows)

    def forward(
        self, audio: Tensor, mel: Tensor, autocast: bool = False, source: Source | None = None
    ) -> tuple[Tensor, Tensor]:
        """Audio [B, T], mel [B, M, T / hop], source of [B, T] -> z [B, G, S], log-determinant [B].

        Raises ValueError if the voice has a source and none is given: only the recording has its phase.
        """
        if source is None and self.config.source is not None:
            raise ValueError("this voice has a source, so its likelihood needs the recording's: give `source`")
        inputs = self._layer_inputs(mel, source, autocast)
        x, log_det, z = self.squeeze.forward(audio), audio.new_zeros(audio.shape[0]), []
        if inputs.log_scale is not None:
            x, log_det = x * inputs.log_scale.exp(), inputs.log_scale.sum((1, 2))
        if self.harmonic is not None:
            x, change = self.harmonic(x, inputs.cond, inputs.source, autocast)
            log_det = log_det + change
        for early, flow in self._steps():
            if early:
                z.append(x[:, : self.config.early_size])
                x = x[:, self.config.early_size :]
            x, change = flow(x, inputs.cond, inputs.source, autocast)
            log_det = log_det + change
        return torch.cat([*z, x], 1), log_det

    def inverse(self, z: Tensor, mel: Tensor, autocast: bool = False, source: Source | None = None) -> Tensor:
        """z [B, G, S], mel [B, M, L] -> audio [B, L * hop]. Raises ValueError if z and mel disagree in length.

        `source` None: the free-running one with its phase from 0, if the voice has a source.
        """
        groups = mel.shape[2] * self.config.groups_per_frame + self.squeeze.extra_groups
        if z.shape[1:] != (self.config.group, groups):
            raise ValueError(
                f"z has shape {list(z.shape)}; {mel.shape[2]} frames need [B, {self.config.group}, {groups}]"
            )
        inputs = self._layer_inputs(mel, self.free_source(mel) if source is None else source, autocast)
        early_rows, x = z.split([self.config.group - self.config.rows[-1], self.config.rows[-1]], 1)
        waiting = list(early_rows.split(self.config.early_size, 1)) if early_rows.shape[1] else []
        for early, flow in reversed(self._steps()):
            x = flow.inverse(x, inputs.cond, inputs.source, autocast)
            if early:
                x = torch.cat([waiting.pop(), x], 1)
        if self.harmonic is not None:
            x = self.harmonic.inverse(x, inputs.cond, inputs.source, autocast)
        if inputs.log_scale is not None:
            x = x * (-inputs.log_scale).exp()
        return limited(self.squeeze.inverse(x), self.config.limiter_knee)

    def nll(self, audio: Tensor, mel: Tensor, autocast: bool = False, source: Source | None = None) -> Tensor:
        """Negative log-likelihood in nats per sample, a scalar, without the constant log(2 pi) / 2 (WaveGlow, equation 8)."""
        z, log_det = self(audio, mel, autocast, source)
        return (0.5 * (z * z).sum() - log_det.sum()) / z.numel()

    @torch.no_grad()
    def free_source(self, mel: Tensor, offset: Tensor | None = None) -> Source | None:
        """The source for inversion: mel [B, M, L] -> source of [B, L * hop], whose phase is the integral of the mel's pitch.

        `offset`: the phase at the first frame's centre, in cycles [B]; None: 0. None for a voice without a source.
        """
        if self.pitch is None:
            return None
        log_f0, logit = (torch.cat([v, v[:, -1:]], 1) for v in self.pitch(self._in_range(mel).double()))
        phase = torch.zeros(len(mel)) if offset is None else offset
        phase = phase.to(mel.device, torch.float64)
        return free_running(log_f0, logit, phase, self.config.mel.hop, self.config.mel.rate_hz)[0]

    def _steps(self) -> list[tuple[bool, Flow]]:
        """The flows in forward order, each with whether rows leave before it."""
        return list(zip(self.config.early, cast("list[Flow]", self.flows)))

    def _in_range(self, mel: Tensor) -> Tensor:
        config = self.config
        return mel if config.mel_highest is None else mel.clamp(config.mel_lowest, config.mel_highest)

    def _layer_inputs(self, mel: Tensor, source: Source | None, autocast: bool) -> _LayerInputs:
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=autocast):
            # A squeeze with one group more than the frames cover repeats the last one.
            cond = F.pad(self.encoder(self._in_range(mel)), (0, self.squeeze.extra_groups), mode="replicate")
            log_scale = None if self.scale is None else self.scale(cond)
        if log_scale is not None:
            log_scale = bounded(log_scale.to(mel.dtype), self.config.mel_scale_bound, MEL_SCALE_MIDDLE)
        cond = cond.to(mel.dtype)
        return _LayerInputs(cond, log_scale, self._squeezed(source, cond))

    def _squeezed(self, source: Source | None, like: Tensor) -> Tensor:
        """The pulses of a source [B, 2G, S], for as many groups as `like` has; no rows without one."""
        if source is None or self.config.source is None:
            return like[:, :0]
        trains = pulses(source, self.config.source, like.dtype)
        return self.squeeze.forward(trains.flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1, 2)


def _harmonic(config: WaveGlowConfig, source: SourceConfig) -> HarmonicLayer:
    wn = WN(
        config.source_rows, config.group,
        source.harmonic_channels, config.cond_channels, source.harmonic_layers, config.kernel, config.causal,
    )  # fmt: skip
    return HarmonicLayer(wn, config.scale_bound)


def _conditioning(config: WaveGlowConfig) -> Conditioning:
    mel = config.mel
    if config.conditioning == "upsample":
        return Upsampler(mel.n_mels, mel.hop, config.group, config.upsample_kernel)
    return FrameEncoder(
        mel.n_mels,
        config.cond_channels,
        config.groups_per_frame,
        config.look_ahead_frames,
        config.mel_mean,
        config.mel_std,
    )
