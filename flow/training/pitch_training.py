"""Training and judging of the network that reads pitch and voicing from mel frames (network/pitch.py).

The loss of a frame that is known to be voiced is the cross entropy of the distribution over pitches, with a target of
TARGET_CENTS around the label, and the error of its mean, cut off so that a wrong octave of the labels counts little. That of
every known frame is the cross entropy of voicing. Windows of frames are given another level and tilt, noise and a band limit,
so that one studio's spectra do not decide.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glowd.flow.mel import Floats
from glowd.flow.network.pitch import PitchNetwork
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.training.data import Clips
from glowd.flow.training.pitch_settings import PitchSettings
from glowd.flow.training.settings import FLOOR, TrainError

CENTS = 1200 / math.log(2)
"""Per unit of a natural logarithm."""
TARGET_CENTS, ERROR_CENTS, LARGEST_ERROR = 30.0, 50.0, 4.0
"""Width of the target; unit of the mean's error, and where it is cut off in that unit."""
ERROR_WEIGHT = 0.3
LEVEL, TILT, NOISE = 1.9, 1.05, 0.17
"""Standard deviations, in nats: of the level, of its change from the middle to either end, and of noise in half the windows."""
CUT_SHARE, LOWEST_CUT = 0.2, 0.44
"""Share of windows that are band limited, and the lowest limit as a share of the bands."""
WARM_UP_STEPS, WEIGHT_DECAY, REPORT_EVERY = 100, 0.05, 250


class Frames(NamedTuple):
    """Frames of many clips in a row; before each clip as many copies of its first one as a window looks back."""

    mel: Tensor
    """[N, M]"""
    f0_hz: Tensor
    """[N], as in pitch_labels.py."""

    def windows(self, ends: Tensor, past: int) -> Tensor:
        """The frames up to and with each of `ends` [B]: [B, past + 1, M], oldest first."""
        return self.mel[ends[:, None] + torch.arange(-past, 1, device=ends.device)]


class Judgement(NamedTuple):
    """How far a pitch network is from labels."""

    median_cents: float
    beyond_200_cents: float
    """Share of the voiced frames, as is the next."""
    beyond_20_percent: float
    voicing: float
    """Share of the known frames whose voicing is right."""

    def __str__(self) -> str:
        return (
            f"median {self.median_cents:.1f} cents, beyond 200 cents {self.beyond_200_cents:.2%}, "
            f"beyond 20 % {self.beyond_20_percent:.2%}, voicing right {self.voicing:.1%}"
        )


def frames_of(clips: Clips, labels: Sequence[Floats], past: int) -> Frames:
    """All frames of the clips with their labels."""
    mels, pitches = [], []
    for index, f0_hz in enumerate(labels):
        mel = clips.whole(index)[1].T
        mels += [mel[:1].expand(past, -1), mel]
        pitches += [torch.full((past,), math.nan), torch.from_numpy(f0_hz)]
    return Frames(torch.cat(mels), torch.cat(pitches))


def train_pitch(
    settings: PitchSettings, config: WaveGlowConfig, frames: Frames, report: Callable[[str], None]
) -> PitchNetwork:
    """A network for voices of `config`, which must have a source, trained on frames on any device.

    Raises TrainError if no frame is known to be voiced, or the loss is not finite.
    """
    known = torch.nonzero(frames.f0_hz.isfinite())[:, 0]
    if not (frames.f0_hz > 0).any():
        raise TrainError(f"the recordings in {settings.data} hold no frame whose pitch is certain; give speech")
    network, device = _network(config, settings.seed), frames.mel.device
    network.to(device)
    random = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.AdamW(network.parameters(), settings.lr, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    for step in range(1, settings.steps + 1):
        optimiser.param_groups[0]["lr"] = settings.lr * _rate(step, settings.steps)
        ends = known[torch.randint(len(known), (settings.batch,), generator=random).to(device)]
        windows = varied(frames.windows(ends, network.past_frames), config, random)
        loss = pitch_loss(network, windows, frames.f0_hz[ends])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % REPORT_EVERY == 0 or step == settings.steps:
            if not math.isfinite(loss.item()):
                raise TrainError(f"step {step} gave a loss of {loss.item()}; try a lower --lr")
            report(f"step {step}: loss {loss.item():.3f}")
    return network.cpu().eval()


def _network(config: WaveGlowConfig, seed: int) -> PitchNetwork:
    assert config.source is not None, "only a voice with a source has a pitch network"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PitchNetwork(config.source.pitch, config.mel.n_mels, config.mel_mean, config.mel_std)


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, cosine to FLOOR."""
    return min(1.0, step / WARM_UP_STEPS) * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def varied(windows: Tensor, config: WaveGlowConfig, random: torch.Generator) -> Tensor:
    """Windows [B, past + 1, M] as of other levels, rooms and codecs; `random` is a generator of the CPU."""
    count, _, bands = windows.shape

    def draw(*shape: int, of: Callable[..., Tensor] = torch.randn) -> Tensor:
        return of(count, *shape, generator=random).to(windows.device)

    band = torch.arange(bands, device=windows.device)
    level = LEVEL * draw(1, 1) + TILT * draw(1, 1) * (2 * band / (bands - 1) - 1)
    noise = NOISE * draw(*windows.shape[1:]) * (draw(1, 1, of=torch.rand) < 0.5)
    limit = bands * (LOWEST_CUT + (1 - LOWEST_CUT) * draw(1, 1, of=torch.rand))
    cut = (draw(1, 1, of=torch.rand) < CUT_SHARE) & (band >= limit)
    changed = torch.where(cut, config.mel_lowest, windows + level + noise)
    return changed.clamp(config.mel_lowest, config.mel_highest)


def pitch_loss(network: PitchNetwork, windows: Tensor, f0_hz: Tensor) -> Tensor:
    """The loss of the file's head for windows [B, past + 1, M] and known labels [B]: a scalar."""
    scores = network.scores(windows.flatten(1))
    log_f0, logit = network.read_out(scores)
    voiced = f0_hz > 0
    loss = F.binary_cross_entropy_with_logits(logit, voiced.float())
    if not voiced.any():
        return loss
    target = f0_hz[voiced].log()
    error = ((log_f0[voiced] - target).abs() * CENTS / ERROR_CENTS).clamp(max=LARGEST_ERROR).mean()
    if network.bins is not None:
        distance = (network.bins.float() - target[:, None]) * CENTS / TARGET_CENTS
        loss = loss + nn.functional.cross_entropy(scores[voiced, :-1], torch.softmax(-0.5 * distance**2, 1))
    return loss + ERROR_WEIGHT * error


@torch.no_grad()
def judge(network: PitchNetwork, clips: Clips, labels: Sequence[Floats]) -> Judgement:
    """A network against the labels of clips, on the CPU. Raises TrainError if no frame is known to be voiced."""
    errors: list[Any] = []
    right: list[Any] = []
    for index, f0_hz in enumerate(labels):
        log_f0, logit = (each[0].numpy() for each in network(clips.whole(index)[1][None]))
        voiced, known = f0_hz > 0, np.isfinite(f0_hz)
        errors.append(log_f0[voiced] - np.log(f0_hz[voiced]))
        right.append(((logit > 0) == voiced)[known])
    error, voicing = np.concatenate(errors), np.concatenate(right)
    if not len(error):
        raise TrainError(f"the recordings in {clips.folder} hold no frame whose pitch is certain; give speech")
    cents = np.abs(error) * CENTS
    gross = np.abs(np.expm1(error)) > 0.2
    return Judgement(float(np.median(cents)), float((cents > 200).mean()), float(gross.mean()), float(voicing.mean()))
