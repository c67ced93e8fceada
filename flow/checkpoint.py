"""Checkpoints: one safetensors file with the weights, the voice's geometry and its card inside.

The metadata holds `glowd_format` (a version: 2, since voices may have a source; files of version 1 are read as ever), `kind`
(see registry.py; WaveGlow where there is none), `config` (that kind's config as JSON) and `card` (free JSON about data, training
and measurements). Nothing in such a file can execute. Weights may be stored in float16; they are used in float32.

`load` and `read_header` take the voices that the daemon can serve; `load_any` and `read_any_header` take every kind.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from glowd.flow.network.registry import Config, Network, build, config_from_dict, kind_of, shapes
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.new_file import write_whole
from glowd.flow.recognition import safetensors_header
from glowd.flow.recognition.kinds import import_command, recognise
from glowd.flow.recognition.printable import printable

FORMAT_VERSION = 2
READABLE = (1, 2)
MAX_CONFIG_CHARACTERS = 1 << 16
MAX_CARD_DEPTH = 16
EMBEDDED = Path(__file__).parent / "voices" / "embedded.safetensors"


class CheckpointError(ValueError):
    """A checkpoint that is missing, corrupt or of another kind. The text names the file and what to do."""


def resolve(checkpoint: str | Path) -> Path:
    """The path of a checkpoint; the name `embedded` means the voice that ships with glowd."""
    return EMBEDDED if str(checkpoint) == "embedded" else Path(checkpoint)


def save(
    path: Path, config: Config, state: dict[str, Tensor], card: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write a checkpoint so that a reader sees the old file or the new one, never half of one. Raises OSError."""
    write_whole(path, as_bytes(config, state, card, half))


def as_bytes(config: Config, state: dict[str, Tensor], card: dict[str, Any] | None = None, half: bool = False) -> bytes:
    """The content of a checkpoint."""
    metadata = {
        "glowd_format": str(FORMAT_VERSION),
        "kind": kind_of(config),
        "config": json.dumps(config.to_dict()),
        "card": json.dumps(card or {}),
    }
    tensors = {k: (v.half() if half else v.float()).contiguous().cpu() for k, v in state.items()}
    return serialize(tensors, metadata)


def read_header(checkpoint: str | Path) -> tuple[WaveGlowConfig, dict[str, Any]]:
    """Geometry and card of a voice without the weights. Raises CheckpointError, also for another kind than WaveGlow."""
    config, card = read_any_header(checkpoint)
    if not isinstance(config, WaveGlowConfig):
        raise CheckpointError(
            f"checkpoint {resolve(checkpoint)} holds a {kind_of(config)}; the daemon serves waveglow voices only; "
            "render it with glowlab render"
        )
    return config, card


def read_any_header(checkpoint: str | Path) -> tuple[Config, dict[str, Any]]:
    """Geometry and card of any kind of network without the weights. Raises CheckpointError."""
    path = resolve(checkpoint)
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist; give a .safetensors file or `embedded`")
    check_kind(path)
    try:
        header = safetensors_header.read(path)
    except (safetensors_header.HeaderError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is not a readable safetensors file: {error}") from error
    version = header.metadata["glowd_format"]
    if version not in map(str, READABLE):
        raise CheckpointError(
            f"checkpoint {path} has format {printable(version)}; this glowd reads {' and '.join(map(str, READABLE))}"
        )
    try:
        config, card = _described(header.metadata)
    except RecursionError:
        raise CheckpointError(f"checkpoint {path} has a broken header: it is nested too deep") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} has a broken header: {error}") from error
    # Before memory is taken for a network: a header may name any geometry, a file has the weights that it has.
    if problems := _misfits(shapes(config), header.shapes):
        raise CheckpointError(f"checkpoint {path} does not fit its own geometry: {'; '.join(problems[:4])}")
    return config, card


def _described(metadata: dict[str, str]) -> tuple[Config, dict[str, Any]]:
    """Geometry and card. Raises ValueError, KeyError, TypeError, RecursionError for what they cannot be."""
    if len(metadata["config"]) > MAX_CONFIG_CHARACTERS:
        raise ValueError(
            f"its config has {len(metadata['config'])} characters; allowed: at most {MAX_CONFIG_CHARACTERS}"
        )
    config = config_from_dict(metadata.get("kind", "waveglow"), json.loads(metadata["config"]))
    card = json.loads(metadata.get("card", "{}"))
    if not isinstance(card, dict) or _depth(card) > MAX_CARD_DEPTH:
        raise ValueError(f"its card is no table, or nested deeper than {MAX_CARD_DEPTH} levels")
    return config, card


def _depth(table: Any) -> int:
    level, depth = [table], 0
    while level and depth <= MAX_CARD_DEPTH:
        children = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level, depth = [child for some in children for child in some], depth + 1
    return depth


def check_kind(path: Path) -> None:
    """Raises CheckpointError for a file that is no checkpoint of glowd: what it is, and what to do with it."""
    try:
        kind = recognise(path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    if kind.is_importable:
        raise CheckpointError(f"checkpoint {path} is {kind.what}, not one of glowd; convert it: {import_command(path)}")
    if kind.name != "glowd":
        raise CheckpointError(f"checkpoint {path} is {kind.what}; {kind.advice}")


def load(checkpoint: str | Path) -> WaveGlow:
    """The voice of a checkpoint, in float32 on the CPU. Raises CheckpointError, also for another kind than WaveGlow."""
    read_header(checkpoint)
    voice = load_any(checkpoint)
    assert isinstance(voice, WaveGlow)
    return voice


def load_any(checkpoint: str | Path) -> Network:
    """The network of a checkpoint, of any kind, in float32 on the CPU. Raises CheckpointError."""
    config, _ = read_any_header(checkpoint)
    path = resolve(checkpoint)
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    voice = build(config)
    voice.load_state_dict(state)
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise CheckpointError(f"checkpoint {path} holds NaN or infinite weights")
    return voice.eval()


def _misfits(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> list[str]:
    missing = [f"{key} is missing" for key in expected.keys() - found.keys()]
    unknown = [f"{printable(key)} is unknown" for key in found.keys() - expected.keys()]
    shapes = [
        f"{key} has shape {list(found[key])}, expected {list(expected[key])}"
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    ]
    return sorted(missing + unknown + shapes)
