"""Published WaveGlow checkpoints to glowd's own: names, layouts and weight norm are translated, numbers are kept.

Rules: files are read by torchfile/, which runs nothing in them. The geometry follows from the shapes of the weights; the
metadata of a file (`config`, attributes of a pickled module) must agree with them.

Supported are NVIDIA/waveglow's pickled modules and state dicts of any age, DeepLearningExamples' {'state_dict', 'config'}, and
NeMo's archives, which call WN wavenet; weights_file.py reads the files:

    published name (weights folded)                  here
    upsample                                         encoder.upsample
    convinv.K.conv [C, C, 1]                         flows.K.mixing [C, C]
    WN.K.start, end                                  flows.K.coupling.wn.start, end
    WN.K.in_layers.I                                 flows.K.coupling.wn.conv.I
    WN.K.res_skip_layers.I                           flows.K.coupling.wn.res_skip.I
      before Nov 2018: res_layers.I + skip_layers.I  (rows of both; the last layer has skip alone)
    WN.K.cond_layer                                  flows.K.coupling.wn.cond
      before Aug 2019: cond_layers.I                 (rows of all)

A weight w = g * v / |v| is stored as weight_g, weight_v, or as parametrizations.weight.original0, original1, or folded.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glowd.flow import checkpoint
from glowd.flow.checkpoint import CheckpointError
from glowd.flow.importing.known_networks import is_squeezed, known_network
from glowd.flow.importing.mel_source import GivenMel, MelSource, find_mel
from glowd.flow.importing.nvidia_layouts import Weights, check, geometry, our_name
from glowd.flow.importing.weights_file import MAX_WEIGHTS, check_size, read_content
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.new_file import PUBLIC, claim_output
from glowd.flow.recognition.kinds import recognise
from glowd.flow.recognition.printable import printable
from glowd.flow.torchfile.reader import Array, Opaque, array_of

_MARK = re.compile(r"(.*?)(WN|wavenet)\.0\.start\.")
_OLDER = re.compile(r"(WN\.\d+\.)(?:cond_layers|skip_layers)\.\d+\.(weight|bias)$")
MOST_LAYERS = 64
_NORM_PARTS = {
    ".weight_g": ".weight_v",
    ".parametrizations.weight.original0": ".parametrizations.weight.original1",
}


@dataclass(frozen=True, slots=True)
class _Source:
    """The weights of a file by their names there, and its metadata."""

    weights: Weights
    hints: Mapping[str, Any]
    iteration: int | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """Geometry and float32 state dict (as WaveGlow(config) expects it) of a published checkpoint.

    `mel_source` says where the values of its mel format come from; `iteration` is that of its training, if it is known.
    """

    config: WaveGlowConfig
    state: dict[str, Tensor]
    mel_source: MelSource
    iteration: int | None
    kind: str
    """What the file is, in words."""


def import_checkpoint(path: str | Path, given: GivenMel = GivenMel()) -> Imported:
    """A published checkpoint. `given` is what is known of its mel format besides.

    Raises CheckpointError if it holds no supported WaveGlow, UnsafeCheckpoint or CheckpointFileError (torchfile/) if the
    file is hostile or damaged, OSError if it cannot be opened. Every text names the file.
    """
    content = read_content(Path(path))
    try:
        source = _find(content)
        check_size(source.weights.values(), Path(path))
        weights = _with_fused_layers(_without_weight_norm(_without_prefix(source.weights)))
        mel_source = find_mel(Path(path), source.hints, given)
        config = geometry(weights, mel_source.format)
        check(weights, config, source.hints)
        state = {our_name(name): _tensor(name, value) for name, value in weights.items()}
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be imported: {error}") from error
    return Imported(config, state, mel_source, source.iteration, recognise(path).what)


def convert(
    source: str | Path,
    target: str | Path,
    half: bool = False,
    given: GivenMel = GivenMel(),
    overwrite: bool = False,
) -> Imported:
    """`import_checkpoint`, then write a glowd checkpoint to `target`; its card names the file it came from."""
    with claim_output(target, "glowd", overwrite, PUBLIC) as new:
        made = import_checkpoint(source, given)
        new.file.write(checkpoint.as_bytes(made.config, made.state, _card(source, made), half))
    return made


def _card(source: str | Path, made: Imported) -> dict[str, Any]:
    origin = {
        "file": Path(source).name, "sha256": _sha256(Path(source)), "iteration": made.iteration,
        "mel": dict(made.mel_source.origins),
    }  # fmt: skip
    return {"imported_from": origin}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Finding the weights in the content of a file.


def _find(content: Any) -> _Source:
    iteration = content.get("iteration") if isinstance(content, dict) else None
    for candidate in _candidates(content):
        weights = _module_weights(candidate) if isinstance(candidate, Opaque) else _arrays(candidate)
        if any(_MARK.match(name) for name in weights):
            if is_squeezed(weights):
                raise ValueError(known_network(weights))
            hints = _module_hints(candidate) if isinstance(candidate, Opaque) else _config(content)
            return _Source(weights, hints, iteration if isinstance(iteration, int) else None)
    if known := known_network(_names(content)):
        raise ValueError(known)
    raise ValueError(
        "it holds no WaveGlow; expected a pickled module, a state_dict, or a dict with one of these as 'model' or "
        f"'state_dict', with weights such as WN.0.start.weight; found {_summary(content)}"
    )


def _candidates(content: Any) -> Iterator[Any]:
    if isinstance(content, Opaque):
        yield content
    if isinstance(content, dict):
        yield from (content[key] for key in ("model", "state_dict", "waveglow", "generator") if key in content)
        yield content


def _names(content: Any, depth: int = 2) -> list[str]:
    """The names of weights, also of the tables inside a table; so many as a network can have."""
    if isinstance(content, Opaque):
        return list(_module_weights(content))[:MAX_WEIGHTS]
    if not isinstance(content, dict):
        return []
    inner = [name for value in list(content.values())[:64] if depth for name in _names(value, depth - 1)]
    return [*(str(key) for key in list(content)[:MAX_WEIGHTS]), *inner][:MAX_WEIGHTS]


def _summary(content: Any) -> str:
    if isinstance(content, dict):
        names = [printable(key, 60) for key in list(content)[:6] if isinstance(key, str | int)]
        return f"a dict of {len(content)} with the keys {', '.join(names)}"
    return (
        printable(f"{content.module}.{content.name}") if isinstance(content, Opaque) else f"a {type(content).__name__}"
    )


def _config(content: Any) -> Mapping[str, Any]:
    config = content.get("config")
    return config if isinstance(config, dict) else {}


def _arrays(table: Any) -> Weights:
    entries = table.items() if isinstance(table, dict) else ()
    found = {name: array_of(value) for name, value in entries if isinstance(name, str)}
    return {name: value for name, value in found.items() if value is not None}


def _attributes(module: Opaque) -> dict[str, Any]:
    return module.state if isinstance(module.state, dict) else {}


def _children(module: Opaque) -> dict[str, Opaque]:
    children = _attributes(module).get("_modules")
    return {str(k): v for k, v in children.items() if isinstance(v, Opaque)} if isinstance(children, dict) else {}


def _module_weights(root: Opaque) -> Weights:
    """The state dict of a pickled module tree, without attributes that are not parameters, such as W_inverse."""
    weights: Weights = {}
    waiting, seen = [("", root)], set[int]()
    while waiting:
        prefix, module = waiting.pop()
        if module.module.partition(".")[0] == "glow_old":
            raise ValueError("glow_old.WaveGlow is not supported: its couplings alternate between the halves")
        seen.add(id(module))
        for table in ("_parameters", "_buffers"):
            weights |= {prefix + name: value for name, value in _arrays(_attributes(module).get(table)).items()}
        waiting += [(f"{prefix}{name}.", child) for name, child in _children(module).items() if id(child) not in seen]
    return weights


def _module_hints(module: Opaque) -> Mapping[str, Any]:
    """The module's n_flows etc., and the stride of its upsampling, which does not follow from a shape."""
    while "WN" not in (children := _children(module)):
        if "module" not in children:
            return {}
        module = children["module"]
    stride = _attributes(children["upsample"]).get("stride") if "upsample" in children else None
    return _attributes(module) | ({"hop": stride[0]} if isinstance(stride, tuple) and stride else {})


# Names and layouts of a file to the newest published ones.


def _without_prefix(weights: Weights) -> Weights:
    """Names without the prefix of a wrapper (`module.`, `waveglow.`), and without stored inverses."""
    prefix, wn = next((match[1], match[2]) for name in weights if (match := _MARK.match(name)))
    return {
        re.sub(rf"^{wn}\.", "WN.", name.removeprefix(prefix)): value
        for name, value in weights.items()
        if name.startswith(prefix) and not name.endswith((".W_inverse", ".inv_conv.weight"))
    }


def _without_weight_norm(weights: Weights) -> Weights:
    folded = dict(weights)
    for name in weights:
        for gain_part, direction_part in _NORM_PARTS.items():
            if name.endswith(gain_part):
                layer = name.removesuffix(gain_part)
                if layer + direction_part not in weights:
                    raise ValueError(f"{layer + direction_part} is missing; {name} needs it")
                folded[layer + ".weight"] = _normed(name, folded.pop(name), folded.pop(layer + direction_part))
    return folded


def _normed(name: str, gain: Array, direction: Array) -> Array:
    if gain.shape != (len(direction), *[1] * (direction.ndim - 1)):
        raise ValueError(f"{name} has shape {list(gain.shape)}; its direction has {list(direction.shape)}")
    direction = direction.astype(np.float32)
    norm = np.sqrt(np.square(direction).sum(axis=tuple(range(1, direction.ndim)), keepdims=True))
    weight: Array = direction * (gain.astype(np.float32) / norm)
    return weight


def _with_fused_layers(weights: Weights) -> Weights:
    """Layers of older files joined, as in the newest published layout."""
    older = {(match[1], match[2]) for name in weights if (match := _OLDER.match(name))}
    for wn, part in sorted(older):
        _fuse_cond(weights, wn, part)
        _fuse_res_skip(weights, wn, part)
    return weights


def _fuse_cond(weights: Weights, wn: str, part: str) -> None:
    if layers := _layers(weights, f"{wn}cond_layers", part):
        rows = [_take(weights, f"{wn}cond_layers.{i}.{part}") for i in range(layers)]
        weights[f"{wn}cond_layer.{part}"] = np.concatenate(rows)


def _fuse_res_skip(weights: Weights, wn: str, part: str) -> None:
    layers = _layers(weights, f"{wn}skip_layers", part)
    for i in range(layers):
        rows = [_take(weights, f"{wn}res_layers.{i}.{part}")] if i < layers - 1 else []
        rows.append(_take(weights, f"{wn}skip_layers.{i}.{part}"))
        weights[f"{wn}res_skip_layers.{i}.{part}"] = np.concatenate(rows)


def _layers(weights: Weights, name: str, part: str) -> int:
    """How many layers of that name there are, up to one more than any network has; one may be missing between them."""
    return max((i + 1 for i in range(MOST_LAYERS + 1) if f"{name}.{i}.{part}" in weights), default=0)


def _take(weights: Weights, name: str) -> Array:
    if name not in weights:
        raise ValueError(f"{name} is missing")
    return weights.pop(name)


def _tensor(name: str, value: Array) -> Tensor:
    # Copies only what is still a view of the file; folded weights are copies already.
    value = np.require(value, np.float32, ["C", "W"])
    if not np.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinite weights")
    return torch.from_numpy(value[:, :, 0].copy() if name.startswith("convinv.") else value)
