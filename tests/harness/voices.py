"""Small voices for tests, of every kind, whose couplings are not the identity."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from glowd.flow.network.pitch import PitchConfig
from glowd.flow.network.source import SourceConfig
from glowd.flow.network.waveglow import Flow, WaveGlow, WaveGlowConfig

DATA = Path(__file__).parents[1] / "flow" / "data"
"""Small voices as files, and what they say."""
SMALL: dict[str, Any] = dict(flows=5, early_every=2, early_size=16, layers=3, channels=16, cond_channels=12)

PLAIN: dict[str, Any] = {"preset": "plain"} | SMALL
"""The same as the voice table of a run file."""
SMALL_SOURCE: dict[str, Any] = SMALL | {
    "source": {
        "harmonic_layers": 2, "harmonic_channels": 20, "pitch": {"past_frames": 5, "channels": 24, "layers": 1},
    },
}  # fmt: skip
"""A voice table of a small voice with a source, for any mel format."""


def tiny(**changes: Any) -> WaveGlowConfig:
    """A small geometry of any kind."""
    settings = SMALL | changes
    if settings.get("conditioning") == "upsample":
        settings |= {"cond_channels": 80 * settings.get("group", 64), "look_ahead_frames": 0}
    return WaveGlowConfig(**settings)


def sourced(**changes: Any) -> WaveGlowConfig:
    """A small geometry with a source, and bounded."""
    source = SourceConfig(
        harmonic_layers=2, harmonic_channels=20, pitch=PitchConfig(past_frames=5, channels=24, layers=1)
    )
    return WaveGlowConfig.sourced(**SMALL | {"source": source} | changes)


def random_voice(config: WaveGlowConfig, seed: int = 0) -> WaveGlow:
    """A network with random weights whose couplings are not the identity, and which does not blow up."""
    torch.manual_seed(seed)
    voice = WaveGlow(config)
    for flow in voice.flows:
        assert isinstance(flow, Flow)
        torch.nn.init.normal_(flow.coupling.wn.end.weight, std=0.02)
    if voice.harmonic is not None:
        torch.nn.init.normal_(voice.harmonic.wn.end.weight, std=0.02)
    return voice.eval()


def hide_numba(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, numba is not there, nor what was imported with it."""
    for name in ("numba_backend", "numba_loops", "numba_math", "numba_matmul"):
        patch.delitem(sys.modules, f"glowd.flow.inversion.{name}", raising=False)
        patch.delattr(f"glowd.flow.inversion.{name}", raising=False)
    patch.setitem(sys.modules, "numba", None)
