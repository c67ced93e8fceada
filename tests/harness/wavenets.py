"""Small WaveNets for tests, and speech with its mel."""

from typing import Any

import torch

from glowd.flow.mel import log_mel
from glowd.flow.network.wavenet import WaveNet, WaveNetConfig
from tests.harness.recordings import voice_like

SMALL: dict[str, Any] = dict(group=8, stacks=2, layers=3, channels=12, skip_channels=16, cond_channels=10)
KINDS: list[dict[str, Any]] = [{}, {"group": 1}, {"group": 4, "order": 0}, {"group": 2, "kernel": 3, "order": 5}]
"""Changes to the small geometry: grouped, sample by sample, without linear prediction, with wider kernels."""


def small(**changes: Any) -> WaveNet:
    """A network whose last layer, which starts at zero, does something."""
    torch.manual_seed(0)
    network = WaveNet(WaveNetConfig(**SMALL | changes))
    torch.nn.init.normal_(network.end.weight, std=0.1)
    return network.eval()


def speech(seconds: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio [1, T] and its mel [1, M, L]."""
    wave = voice_like(seconds, seed)
    frames = len(wave) // 256
    return torch.from_numpy(wave[: frames * 256])[None], torch.from_numpy(log_mel(wave)[:frames].T.copy())[None]
