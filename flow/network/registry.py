"""The kinds of network that can be trained and stored in a checkpoint, by the names that checkpoints give them.

A kind is a frozen config (`to_dict`, `from_dict`, `mel`) and a module made from it, with `nll(audio, mel, autocast)`.
"""

from typing import Any

import torch

from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.network.wavenet import WaveNet, WaveNetConfig

Config = WaveGlowConfig | WaveNetConfig
Network = WaveGlow | WaveNet

CONFIGS: dict[str, type[WaveGlowConfig] | type[WaveNetConfig]] = {"waveglow": WaveGlowConfig, "wavenet": WaveNetConfig}


def kind_of(config: Config) -> str:
    """The name of a config's kind."""
    return next(kind for kind, cls in CONFIGS.items() if type(config) is cls)


def config_from_dict(kind: str, table: dict[str, Any]) -> Config:
    """The inverse of `to_dict` and `kind_of`. Raises ValueError for an unknown kind or key, or an impossible value."""
    if kind not in CONFIGS:
        raise ValueError(f"unknown kind of network {kind!r}; known: {', '.join(CONFIGS)}")
    return CONFIGS[kind].from_dict(table)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a network of that geometry, without memory for any of them."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build(config).state_dict().items()}


def build(config: Config) -> Network:
    """A network of that geometry, with random weights."""
    return WaveGlow(config) if isinstance(config, WaveGlowConfig) else WaveNet(config)
