"""A trained pitch network as a safetensors file: weights in float32, geometry and card in the header.

Rules: it is no voice, so `checkpoint` refuses it; `glowlab train --pitch` puts it into one.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from glowd.flow.mel import MelFormat
from glowd.flow.network.pitch import PitchConfig, PitchNetwork
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.new_file import write_whole
from glowd.flow.training.settings import TrainError

FORMAT = "1"


@dataclass(frozen=True, slots=True)
class PitchFile:
    """A pitch network: geometry, the mels that it reads, weights and card."""

    config: PitchConfig
    mel: MelFormat
    mel_mean: float
    mel_std: float
    weights: dict[str, Tensor]
    card: dict[str, Any]

    def network(self) -> PitchNetwork:
        """The network, in float32 on the CPU."""
        network = PitchNetwork(self.config, self.mel.n_mels, self.mel_mean, self.mel_std)
        network.load_state_dict(self.weights)
        return network.eval()

    def inside(self, voice: WaveGlowConfig) -> WaveGlowConfig:
        """The geometry of a voice with this pitch network in it. Raises TrainError if the two do not go together."""
        if voice.source is None:
            raise TrainError('--pitch is for a voice with a source; this one has none (its preset may be "plain")')
        mine, other = (self.mel, self.mel_mean, self.mel_std), (voice.mel, voice.mel_mean, voice.mel_std)
        if mine != other:
            raise TrainError(f"--pitch reads mels of {mine}; the voice reads {other}; train one on the voice's mels")
        return replace(voice, source=replace(voice.source, pitch=self.config))

    def save(self, path: Path) -> None:
        """Write it so that a reader sees the old file or the new one. Raises OSError."""
        write_whole(path, self.as_bytes())

    def as_bytes(self) -> bytes:
        """The content of the file."""
        fitted = {"pitch": self.config.to_dict(), "mel": self.mel.to_dict(), "mean": self.mel_mean, "std": self.mel_std}
        header = {"glowd_pitch": FORMAT, "config": json.dumps(fitted), "card": json.dumps(self.card)}
        tensors = {key: value.float().contiguous().cpu() for key, value in self.weights.items()}
        return serialize(tensors, header)


def read_pitch(path: Path) -> PitchFile:
    """What `PitchFile.save` wrote. Raises TrainError if there is none, or it is damaged or something else."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise TrainError(f"--pitch {path} cannot be read: {error}; glowlab pitch writes one") from error
    if header.get("glowd_pitch") != FORMAT:
        raise TrainError(f"--pitch {path} holds no pitch network of format {FORMAT}; glowlab pitch writes one")
    try:
        fitted = json.loads(header["config"])
        config, mel = PitchConfig.from_dict(fitted["pitch"]), MelFormat.from_dict(fitted["mel"])
        found = PitchFile(config, mel, fitted["mean"], fitted["std"], weights, json.loads(header["card"]))
        found.network()
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainError(f"--pitch {path} is damaged: {error}; glowlab pitch writes one") from error
    return found
