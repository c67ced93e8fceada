"""Small voices for tests, of every kind, whose couplings are not the identity."""

from pathlib import Path
from typing import Any

import torch

from glowd.flow.network.waveglow import Flow, WaveGlow, WaveGlowConfig

VECTORS = Path(__file__).parents[1] / "flow" / "data" / "seed_vectors.safetensors"
SMALL: dict[str, Any] = dict(flows=5, early_every=2, early_size=16, layers=3, channels=16, cond_channels=12)


def tiny(**changes: Any) -> WaveGlowConfig:
    """A small geometry of any kind."""
    settings = SMALL | changes
    if settings.get("conditioning") == "upsample":
        settings |= {"cond_channels": 80 * settings.get("group", 64), "look_ahead_frames": 0}
    return WaveGlowConfig(**settings)


def random_voice(config: WaveGlowConfig, seed: int = 0) -> WaveGlow:
    """A network with random weights whose couplings are not the identity, and which does not blow up."""
    torch.manual_seed(seed)
    voice = WaveGlow(config)
    for flow in voice.flows:
        assert isinstance(flow, Flow)
        torch.nn.init.normal_(flow.coupling.wn.end.weight, std=0.02)
    return voice.eval()
