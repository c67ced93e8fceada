"""WaveNet as a vocoder (van den Oord et al. 2016, arXiv:1609.03499): the definition of the network.

Every sample is drawn from a Gaussian (Ping et al. 2018, ClariNet, arXiv:1807.07281) that the network computes from all
samples before it and from the mel. Two known changes make it train in minutes instead of days:

- It models the excitation: what remains after linear prediction from the mel (LP-WaveNet; see linear_prediction.py).
- It steps by groups of G samples. Inside a group each sample's mean adds a linear function of the group's earlier
  excitations, so the factorisation over samples, and with it the likelihood, stays exact; G = 1 is the plain WaveNet.

    audio -> excitation and level-normalised audio, one group late -> start -> {dilated layer} x stacks x layers
          -> sum of skips -> ReLU, 1x1, ReLU, 1x1 -> mean, log-scale, taps inside the group

Symbols: B batch, M mel bins, L mel frames, T = L * hop samples, G group size, S = T / G steps, C channels, N slices (the
quarters, say, of a frame, over which conditioning and linear prediction are constant). Sampling is wavenet_sampling.py.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.mel import MelFormat
from glowd.flow.network.conditioning import FrameEncoder
from glowd.flow.network.linear_prediction import Predictor
from glowd.flow.options import Options, option

LEAST_LOG_SCALE = -7.0
"""Lower limit of a sample's log-scale, over the expected excitation: -61 dB."""

MOST_TEMPERATURE = 2.0
MOST_REACH_SAMPLES = 2**20


@dataclass(frozen=True, slots=True)
class WaveNetConfig(Options):
    """The geometry of a WaveNet. Stands inside its checkpoint."""

    group: int = option(4, "samples of one step", min=1, max=64)
    stacks: int = option(2, "times that the layers are repeated", min=1, max=16)
    layers: int = option(8, "layers of one stack; layer i has the dilation kernel^i, in groups", min=1, max=16)
    channels: int = option(80, "channels of a layer", min=1, max=2048)
    skip_channels: int = option(128, "channels of the sum of skips", min=1, max=4096)
    kernel: int = option(2, "taps of a layer", min=2, max=8)
    cond_channels: int = option(96, "channels of the conditioning", min=1, max=16384)
    slices_per_frame: int = option(4, "parts of a frame over which conditioning is constant", min=1, max=1024)
    look_ahead_frames: int = option(1, "frames after a frame that its conditioning depends on", min=1, max=64)
    order: int = option(24, "order of the linear prediction; 0: none", min=0)
    mel_mean: float = option(-5.6, "mean of the mel that the network normalises with", min=-100, max=100)
    mel_std: float = option(2.1, "standard deviation of the mel that the network normalises with", above=0, max=100)
    temperature: float = option(
        0.8, "noise of sampling over the Gaussian's own; below 1 there is less hiss", min=0, max=MOST_TEMPERATURE
    )
    mel: MelFormat = field(default_factory=MelFormat)

    def check(self) -> None:
        """Raise OptionError where values do not fit together."""
        hop, slices = self.mel.hop, self.slices_per_frame
        self.require("mel", self.mel.is_for_voices, "a format of 8000 to 96000 Hz")
        self.require(
            "order", self.order < self.mel.n_fft // 2, f"at most {self.mel.n_fft // 2 - 1}, half of n_fft less 1"
        )
        short = self.reach_samples <= MOST_REACH_SAMPLES
        self.require("layers", short, f"such that a sample depends on at most {MOST_REACH_SAMPLES} samples before it")
        self.require("slices_per_frame", hop % slices == 0, f"a divisor of the hop, {hop}")
        self.require("group", self.slice_samples % self.group == 0, f"a divisor of the slice, {self.slice_samples}")

    @property
    def slice_samples(self) -> int:
        """Samples over which conditioning and linear prediction are constant."""
        return self.mel.hop // self.slices_per_frame

    @property
    def dilations(self) -> list[int]:
        """Of every layer, in groups."""
        return [self.kernel**i for i in range(self.layers)] * self.stacks

    @property
    def reach_samples(self) -> int:
        """Samples before a group that its distribution depends on: the receptive field."""
        return self.group * (1 + (self.kernel - 1) * sum(self.dilations)) + self.order


def product(layer: nn.Conv1d, *taps: Tensor) -> Tensor:
    """A convolution as one matrix product: its taps [B, S, in], oldest first, to [B, S, out]. Faster than it on a CPU."""
    return F.linear(torch.cat(taps, -1), layer.weight.transpose(1, 2).flatten(1), layer.bias)


class Layer(nn.Module):
    """A gated dilated convolution that looks back only, with its residual and its skip (WaveNet, figure 4)."""

    def __init__(self, channels: int, skip_channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.widths, self.dilation = [channels, skip_channels], dilation
        self.conv = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation)
        self.res_skip = nn.Conv1d(channels, channels + skip_channels, 1)

    def forward(self, h: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """h [B, S, C], cond [B, N, 2C] with S a multiple of N -> the next h [B, S, C], skip [B, S, K]."""
        delays = [tap * self.dilation for tap in reversed(range(self.conv.kernel_size[0]))]
        gates = product(self.conv, *(F.pad(h, (0, 0, delay, 0))[:, : h.shape[1]] for delay in delays))
        a, b = (gates.unflatten(1, (cond.shape[1], -1)) + cond[:, :, None]).flatten(1, 2).chunk(2, 2)
        residual, skip = product(self.res_skip, torch.tanh(a) * torch.sigmoid(b)).split_with_sizes(self.widths, 2)
        return h + residual, skip


class WaveNet(nn.Module):
    """The network. `forward(audio, mel)` gives the Gaussian of every sample, `nll` their likelihood."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config = config
        mel, group, dilations = config.mel, config.group, config.dilations
        self.predictor = Predictor(mel, config.order, config.slices_per_frame)
        self.encoder = FrameEncoder(
            mel.n_mels, config.cond_channels, config.slices_per_frame, config.look_ahead_frames,
            config.mel_mean, config.mel_std,
        )  # fmt: skip
        self.cond = nn.Conv1d(config.cond_channels, 2 * config.channels * len(dilations), 1)
        self.start = nn.Conv1d(2 * group, config.channels, 1)
        self.stack = nn.ModuleList(Layer(config.channels, config.skip_channels, config.kernel, d) for d in dilations)
        self.mix = nn.Conv1d(config.skip_channels, config.skip_channels, 1)
        self.end = nn.Conv1d(config.skip_channels, 2 * group + group * (group - 1) // 2, 1)
        # It begins as linear prediction with a Gaussian excitation of the expected power.
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]  # Conv1d has a bias here

    def forward(self, audio: Tensor, mel: Tensor, autocast: bool = False) -> tuple[Tensor, Tensor]:
        """Audio [B, T], mel [B, M, T / hop] -> mean [B, T], log-scale [B, T] of each sample given those before it."""
        predicted, gain, level = self.predict(audio, mel)
        excitation = self._grouped((audio - predicted) / gain)
        groups = torch.cat([excitation, self._grouped(audio / level)], 2)
        past = F.pad(groups[:, :-1], (0, 0, 1, 0))
        with torch.autocast(mel.device.type, torch.bfloat16, enabled=autocast):
            out = product(self.end, self._skips(past, self.condition(self.encoder(mel))))
        mean, log_scale, taps = self.split(out.float())
        inside = (taps @ excitation[..., None])[..., 0]
        return predicted + gain * (mean + inside).flatten(1), gain.log() + log_scale.flatten(1)

    def nll(self, audio: Tensor, mel: Tensor, autocast: bool = False) -> Tensor:
        """Negative log-likelihood in nats per sample, a scalar, without the constant log(2 pi) / 2.

        It is WaveGlow's figure: a density over the same dequantised samples in [-1, 1], with the same constant left out.
        """
        mean, log_scale = self(audio, mel, autocast)
        z = (audio - mean) * (-log_scale).exp()
        return (0.5 * z.square() + log_scale).mean()

    def predict(self, audio: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T], [B, M, T / hop] -> linear prediction of every sample, size of its error, level of the signal: [B, T]."""
        prediction, order = self.predictor(mel), self.config.order
        windows = F.pad(audio, (order, 0)).unfold(1, order + 1, 1)[..., :order]
        windows = windows.unflatten(1, (prediction.taps.shape[1], -1))
        predicted = (windows @ prediction.taps.flip(-1)[..., None]).flatten(1)
        repeat = self.config.slice_samples
        return predicted, prediction.gain.repeat_interleave(repeat, 1), prediction.level.repeat_interleave(repeat, 1)

    def condition(self, encoded: Tensor) -> Tensor:
        """The encoder's output [B, C_cond, N] -> the conditioning of all layers [B, N, layers, 2C]."""
        return product(self.cond, encoded.transpose(1, 2)).unflatten(2, (len(self.stack), -1))

    def _skips(self, past: Tensor, cond: Tensor) -> Tensor:
        h, total = product(self.start, past), torch.zeros((), device=past.device)
        for layer, c in zip(self.stack, cond.unbind(2)):
            h, skip = layer(h, c)
            total = total + skip
        return F.relu(product(self.mix, F.relu(total)))

    def split(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The last layer's output [..., S, rows] -> mean [..., S, G], log-scale [..., S, G], taps [..., S, G, G].

        Taps are strictly lower triangular: row i holds those of sample i of a group.
        """
        group = self.config.group
        mean, log_scale, lower = out.split_with_sizes([group, group, out.shape[-1] - 2 * group], -1)
        taps = out.new_zeros(*out.shape[:-1], group, group)
        row, column = torch.tril_indices(group, group, -1, device=out.device)
        taps[..., row, column] = lower
        return mean, log_scale.clamp(min=LEAST_LOG_SCALE), taps

    def _grouped(self, samples: Tensor) -> Tensor:
        return samples.unflatten(1, (-1, self.config.group))
