"""WaveGlow (Prenger, Valle & Catanzaro 2018, arXiv:1811.00002): the definition of the network, and nothing else.

One class covers all voices: the published geometry (polyphase squeeze, non-causal WN, transposed-convolution
conditioning), the streaming one (lapped squeeze, mel-conditioned scale, causal WN, frame encoder), and that with a source,
pulses at the mel's pitch (source.py), which the harmonic layer and all couplings see.

    forward   audio -> squeeze -> scale -> harmonic? -> {early output?, mixing, coupling} x flows -> z, log-determinant
    inverse   the same list of layers, walked backwards; then the limiter, if there is one

Symbols: B batch, M mel bins, L mel frames, T = L * hop samples, G group size, S groups (T / G, or one more when lapped).
Rows of z [B, G, S]: early outputs first, in the order the forward pass emits them, then what remains.
"""

import math
from dataclasses import asdict, dataclass, field, fields
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

MEL_SCALE_MIDDLE = 3.0
"""What a bounded mel scale is bounded around, in nats: speech's own lies between -1 and 7."""


@dataclass(frozen=True, slots=True)
class WaveGlowConfig:
    """The geometry of a voice. Stands inside its checkpoint. Defaults are the first streaming voice; see `sourced`, `stock`.

    Bounds (None: no bound) keep a voice in range on mels it has never met: `scale_bound` that of the log-scales of couplings
    and harmonic layer, `mel_scale_bound` of the mel's around MEL_SCALE_MIDDLE, both in nats; `mel_highest`: frames are held
    between the log floor of the format and this; `limiter_knee`: samples beyond it are bent to stay below 1.
    """

    squeeze: str = "lapped"
    group: int = 64
    flows: int = 12
    early_every: int = 4
    early_size: int = 16
    layers: int = 4
    channels: int = 96
    kernel: int = 3
    causal: bool = True
    conditioning: str = "frames"
    cond_channels: int = 96
    look_ahead_frames: int = 1
    upsample_kernel: int = 1024
    mel_scale: bool = True
    mel_mean: float = -5.6
    mel_std: float = 2.1
    sigma: float = 0.8
    source: SourceConfig | None = None
    scale_bound: float | None = None
    mel_scale_bound: float | None = None
    mel_highest: float | None = None
    limiter_knee: float | None = None
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

    def __post_init__(self) -> None:
        self._require("squeeze", self.squeeze in SQUEEZES, f"one of {', '.join(SQUEEZES)}")
        self._require("conditioning", self.conditioning in ("frames", "upsample"), "frames or upsample")
        for name in ("group", "flows", "early_every", "layers", "channels", "kernel", "cond_channels"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("group", self.mel.hop % self.group == 0, f"a divisor of the hop {self.mel.hop}")
        self._require("kernel", self.kernel % 2 == 1, "odd")
        self._require(
            "early_size",
            all(n >= 2 and n % 2 == 0 for n in self.rows),
            "such that every flow keeps an even number of rows",
        )
        for name in ("scale_bound", "mel_scale_bound"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, "above 0, or none")
        self._require(
            "limiter_knee", self.limiter_knee is None or 0 < self.limiter_knee < 1, "between 0 and 1, or none"
        )
        spans = self.mel_highest is None or self.mel_highest > self.mel_lowest
        self._require("mel_highest", spans, f"above {self.mel_lowest:.2f}, or none")
        if self.source is not None:
            streams = self.squeeze == "lapped" and self.causal and self.conditioning == "frames"
            self._require(
                "source",
                streams and self.look_ahead_frames >= 1,
                "none, unless squeeze is lapped, causal is true, conditioning is frames and look_ahead_frames at least 1",
            )
        if self.conditioning == "upsample":
            self._require(
                "upsample_kernel", self.upsample_kernel % self.mel.hop == 0, f"a multiple of the hop {self.mel.hop}"
            )
            expected = self.mel.n_mels * self.group
            self._require("cond_channels", self.cond_channels == expected, f"n_mels * group = {expected}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"voice geometry: {name} is {getattr(self, name)!r}; allowed: {allowed}")

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
        """What `mel_highest` is the other end of: the floor of the format's logarithm."""
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

    def to_dict(self) -> dict[str, Any]:
        """A plain map, as it stands in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "WaveGlowConfig":
        """The inverse of `to_dict`; raises ValueError for an unknown key or an impossible value."""
        known = [f.name for f in fields(cls)]
        if unknown := table.keys() - set(known):
            raise ValueError(f"unknown voice setting {min(unknown)!r}; known: {', '.join(known)}")
        source = table.get("source")
        parts = {
            "mel": MelFormat.from_dict(table.get("mel", {})),
            "source": None if source is None else SourceConfig.from_dict(source),
        }
        return cls(**table | parts)


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


class _Given(NamedTuple):
    """What every layer is told of the groups: conditioning [B, C_cond, S], the mel's log-scale, the squeezed source."""

    cond: Tensor
    log_scale: Tensor | None
    source: Tensor


class WaveGlow(nn.Module):
    """The network. `forward(audio, mel)` gives z and log-determinant, `inverse(z, mel)` gives the audio back.

    A voice with a source is told that too: `forward` the recording's own, whose phase is that of its fundamental, `inverse`
    one whose phase runs free, `free_source`. Its pitch network is part of it, and no parameter of its training.
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

        Raises ValueError if the voice has a source and none is given: only the recording tells its phase.
        """
        if source is None and self.config.source is not None:
            raise ValueError("this voice has a source, so its likelihood needs the recording's: give `source`")
        given = self._given(mel, source, autocast)
        x, log_det, z = self.squeeze.forward(audio), audio.new_zeros(audio.shape[0]), []
        if given.log_scale is not None:
            x, log_det = x * given.log_scale.exp(), given.log_scale.sum((1, 2))
        if self.harmonic is not None:
            x, change = self.harmonic(x, given.cond, given.source, autocast)
            log_det = log_det + change
        for early, flow in self._steps():
            if early:
                z.append(x[:, : self.config.early_size])
                x = x[:, self.config.early_size :]
            x, change = flow(x, given.cond, given.source, autocast)
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
        given = self._given(mel, self.free_source(mel) if source is None else source, autocast)
        early_rows, x = z.split([self.config.group - self.config.rows[-1], self.config.rows[-1]], 1)
        waiting = list(early_rows.split(self.config.early_size, 1)) if early_rows.shape[1] else []
        for early, flow in reversed(self._steps()):
            x = flow.inverse(x, given.cond, given.source, autocast)
            if early:
                x = torch.cat([waiting.pop(), x], 1)
        if self.harmonic is not None:
            x = self.harmonic.inverse(x, given.cond, given.source, autocast)
        if given.log_scale is not None:
            x = x * (-given.log_scale).exp()
        return limited(self.squeeze.inverse(x), self.config.limiter_knee)

    def nll(self, audio: Tensor, mel: Tensor, autocast: bool = False, source: Source | None = None) -> Tensor:
        """Negative log-likelihood in nats per sample, a scalar, without the constant log(2 pi) / 2 (WaveGlow, equation 8)."""
        z, log_det = self(audio, mel, autocast, source)
        return (0.5 * (z * z).sum() - log_det.sum()) / z.numel()

    @torch.no_grad()
    def free_source(self, mel: Tensor, offset: Tensor | None = None) -> Source | None:
        """What the voice speaks with: mel [B, M, L] -> the source of [B, L * hop], its phase the integral of the mel's pitch.

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

    def _given(self, mel: Tensor, source: Source | None, autocast: bool) -> _Given:
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=autocast):
            # A squeeze with one group more than the frames cover repeats the last one.
            cond = F.pad(self.encoder(self._in_range(mel)), (0, self.squeeze.extra_groups), mode="replicate")
            log_scale = None if self.scale is None else self.scale(cond)
        if log_scale is not None:
            log_scale = bounded(log_scale.float(), self.config.mel_scale_bound, MEL_SCALE_MIDDLE)
        return _Given(cond.float(), log_scale, self._squeezed(source, cond.float()))

    def _squeezed(self, source: Source | None, like: Tensor) -> Tensor:
        """The pulses of a source [B, 2G, S], for as many groups as `like` has; no rows without one."""
        if source is None or self.config.source is None:
            return like[:, :0]
        trains = pulses(source, self.config.source)
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
