"""Sentences of the validation set, rendered by a network in training, so that one can listen to its progress.

Rules: a network and clips in, samples out. The noise depends on the sentence alone: two renders differ by the network only.
"""

import copy

import torch

from glowd.flow.mel import Floats
from glowd.flow.network.registry import Network
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.network.wavenet import WaveNet
from glowd.flow.training.data import Clips

SENTENCES = 4


def sample_sentences(network: Network, clips: Clips, count: int = SENTENCES) -> dict[str, Floats]:
    """The first `count` clips as the network renders them, at its own sigma or temperature: name -> samples [T]."""
    mels = [clips.whole(i)[1] for i in range(min(count, clips.count))]
    rendered = _sample(network, mels) if isinstance(network, WaveNet) else _invert(network, mels)
    return {f"{i + 1}-{name}": samples for i, (name, samples) in enumerate(zip(clips.names, rendered))}


def _sample(network: WaveNet, mels: list[torch.Tensor]) -> list[Floats]:
    from glowd.flow.network.wavenet_sampling import sample  # compiles its loop, which takes seconds

    return sample(copy.deepcopy(network).cpu(), [mel.T.cpu().numpy() for mel in mels])


@torch.no_grad()
def _invert(voice: WaveGlow, mels: list[torch.Tensor]) -> list[Floats]:
    rendered: list[Floats] = []
    for i, mel in enumerate(mels):
        groups = mel.shape[1] * voice.config.groups_per_frame + voice.squeeze.extra_groups
        # Drawn on the CPU, so that they are the same on every device.
        z = torch.randn(1, voice.config.group, groups, generator=torch.Generator().manual_seed(i))
        samples: Floats = voice.inverse(voice.config.sigma * z.to(mel.device), mel[None])[0].cpu().numpy()
        rendered.append(samples)
    return rendered
