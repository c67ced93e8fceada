"""WaveGlow (Prenger, Valle & Catanzaro 2018, arXiv:1811.00002): the definition of the network, and nothing else.

One class covers both voices: the published geometry (polyphase squeeze, non-causal WN, transposed-convolution
conditioning) and the streaming one (lapped squeeze, mel-conditioned scale, causal WN, frame encoder).

    forward   audio -> squeeze -> scale -> {early output?, mixing, coupling} x flows -> z, log-determinant
    inverse   the same list of layers, walked backwards

Symbols: B batch, M mel bins, L mel frames, T = L * hop samples, G group size, S groups (T / G, or one more when lapped).
Rows of z [B, G, S]: early outputs first, in the order the forward pass emits them, then what remains.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.mel import MelFormat
from glowd.flow.network.conditioning import Conditioning, FrameEncoder, Upsampler
from glowd.flow.network.coupling import WN, Coupling, Mixing
from glowd.flow.network.squeeze import SQUEEZES


@dataclass(frozen=True, slots=True)
class WaveGlowConfig:
    """The geometry of a voice. Stands inside its checkpoint. Defaults are the streaming voice; see `stock`."""

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
    mel: MelFormat = field(default_factory=MelFormat)

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
    def groups_per_frame(self) -> int:
        """Groups that one mel frame covers."""
        return self.mel.hop // self.group

    @property
    def reach_groups(self) -> int:
        """One-sided receptive field of the whole inversion, in groups: flows * sum of the layers' reach."""
        one_wn = (self.kernel - 1) * (2**self.layers - 1)
        return self.flows * (one_wn if self.causal else one_wn // 2)

    def to_dict(self) -> dict[str, Any]:
        """A plain map, as it stands in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "WaveGlowConfig":
        """The inverse of `to_dict`; raises ValueError for an unknown key or an impossible value."""
        known = [f.name for f in fields(cls)]
        if unknown := table.keys() - set(known):
            raise ValueError(f"unknown voice setting {min(unknown)!r}; known: {', '.join(known)}")
        return cls(**table | {"mel": MelFormat.from_dict(table.get("mel", {}))})


class Flow(nn.Module):
    """One step: mixing, then coupling."""

    def __init__(self, rows: int, config: WaveGlowConfig) -> None:
        super().__init__()
        self.mixing = Mixing(rows)
        self.coupling = Coupling(
            WN(rows // 2, config.channels, config.cond_channels, config.layers, config.kernel, config.causal)
        )

    def forward(self, x: Tensor, cond: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """[B, rows, S] -> the same shape, log-determinant [B]."""
        x, mixed = self.mixing(x)
        x, scaled = self.coupling(x, cond, autocast)
        return x, mixed + scaled

    def inverse(self, x: Tensor, cond: Tensor, autocast: bool = False) -> Tensor:
        """[B, rows, S] -> the same shape."""
        return self.mixing.inverse(self.coupling.inverse(x, cond, autocast))


class WaveGlow(nn.Module):
    """The network. `forward(audio, mel)` gives z and log-determinant, `inverse(z, mel)` gives the audio back."""

    def __init__(self, config: WaveGlowConfig) -> None:
        super().__init__()
        self.config = config
        self.squeeze = SQUEEZES[config.squeeze](config.group)
        self.encoder: Conditioning = _conditioning(config)
        self.scale = nn.Sequential(
            nn.Conv1d(config.cond_channels, 256, 1), nn.SiLU(), nn.Conv1d(256, config.group, 1)
        ) if config.mel_scale else None  # fmt: skip
        self.flows = nn.ModuleList(Flow(rows, config) for rows in config.rows)

    def forward(self, audio: Tensor, mel: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """Audio [B, T], mel [B, M, T / hop] -> z [B, G, S], log-determinant [B]."""
        cond, log_scale = self._condition(mel, autocast)
        x, log_det, z = self.squeeze.forward(audio), audio.new_zeros(audio.shape[0]), []
        if log_scale is not None:
            x, log_det = x * log_scale.exp(), log_scale.sum((1, 2))
        for early, flow in self._steps():
            if early:
                z.append(x[:, : self.config.early_size])
                x = x[:, self.config.early_size :]
            x, change = flow(x, cond, autocast)
            log_det = log_det + change
        return torch.cat([*z, x], 1), log_det

    def inverse(self, z: Tensor, mel: Tensor, autocast: bool = False) -> Tensor:
        """z [B, G, S], mel [B, M, L] -> audio [B, L * hop]. Raises ValueError if z and mel disagree in length."""
        groups = mel.shape[2] * self.config.groups_per_frame + self.squeeze.extra_groups
        if z.shape[1:] != (self.config.group, groups):
            raise ValueError(
                f"z has shape {list(z.shape)}; {mel.shape[2]} frames need [B, {self.config.group}, {groups}]"
            )
        cond, log_scale = self._condition(mel, autocast)
        early_rows, x = z.split([self.config.group - self.config.rows[-1], self.config.rows[-1]], 1)
        waiting = list(early_rows.split(self.config.early_size, 1)) if early_rows.shape[1] else []
        for early, flow in reversed(self._steps()):
            x = flow.inverse(x, cond, autocast)
            if early:
                x = torch.cat([waiting.pop(), x], 1)
        return self.squeeze.inverse(x if log_scale is None else x * (-log_scale).exp())

    def nll(self, audio: Tensor, mel: Tensor, autocast: bool = False) -> Tensor:
        """Negative log-likelihood in nats per sample, a scalar, without the constant log(2 pi) / 2 (WaveGlow, equation 8)."""
        z, log_det = self(audio, mel, autocast)
        return (0.5 * (z * z).sum() - log_det.sum()) / z.numel()

    def _steps(self) -> list[tuple[bool, Flow]]:
        """The flows in forward order, each with whether rows leave before it."""
        return list(zip(self.config.early, cast("list[Flow]", self.flows)))

    def _condition(self, mel: Tensor, autocast: bool) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=autocast):
            # A squeeze with one group more than the frames cover repeats the last one.
            cond = F.pad(self.encoder(mel), (0, self.squeeze.extra_groups), mode="replicate")
            log_scale = None if self.scale is None else self.scale(cond)
        return cond.float(), None if log_scale is None else log_scale.float()


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
