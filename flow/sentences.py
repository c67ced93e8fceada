"""Sentences of the validation set spoken by a voice in training, so that progress can be heard.

Rules: a network and clips in, samples out. The latents depend on the sentence alone: what differs between two renders is
the voice.
"""

import torch
from torch import nn

from flow.data import Clips
from flow.mel import Floats
from flow.objective import invertible

SENTENCES = 4


@torch.no_grad()
def speak(voice: nn.Module, clips: Clips, count: int = SENTENCES) -> dict[str, Floats]:
    """The first `count` clips as the voice says them, in float32 and at its own sigma: name -> samples [T].

    Raises TrainError for a network without inverse.
    """
    glow = invertible(voice, "samples are asked for")
    spoken = {}
    for i, name in enumerate(clips.names[:count]):
        mel = clips.whole(i)[1][None]
        groups = mel.shape[2] * glow.config.groups_per_frame + glow.squeeze.extra_groups
        # Drawn on the CPU, so that they are the same on every device.
        z = torch.randn(1, glow.config.group, groups, generator=torch.Generator().manual_seed(i))
        samples: Floats = glow.inverse(glow.config.sigma * z.to(mel.device), mel)[0].cpu().numpy()
        spoken[f"{i + 1}-{name}"] = samples
    return spoken
