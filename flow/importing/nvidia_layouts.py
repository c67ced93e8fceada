"""The published WaveGlow's names and shapes: the geometry that follows from them, and their names here.

Rules: names and shapes only, no files. `Weights` are the published state dict with weight norm folded, by name, in the layout
of NVIDIA/waveglow since August 2019.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from glowd.flow.mel import MelFormat
from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.torchfile.reader import Array

Weights = dict[str, Array]


def count(weights: Weights, pattern: str) -> int:
    """Number of different values of the group of `pattern`, among the names that it matches."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def _shape(weights: Weights, name: str) -> tuple[int, ...]:
    if name not in weights:
        raise ValueError(f"{name} is missing")
    if weights[name].ndim != 3:
        raise ValueError(f"{name} has shape {list(weights[name].shape)}; expected 3 dimensions")
    return weights[name].shape


def geometry(weights: Weights, mel: MelFormat) -> WaveGlowConfig:
    """The geometry that follows from the shapes, and from a mel format, whose number of bands does.

    Raises ValueError for a weight that is missing or an impossible geometry.
    """
    n_mels, _, upsample_kernel = _shape(weights, "upsample.weight")
    channels, _, _ = _shape(weights, "WN.0.start.weight")
    flows = count(weights, r"WN\.(\d+)\.")
    rows = [_shape(weights, f"convinv.{flow}.conv.weight")[0] for flow in range(flows)]
    first_early = next((flow for flow in range(flows) if rows[flow] != rows[0]), flows)
    return WaveGlowConfig.stock(
        channels=channels,
        group=rows[0],
        flows=flows,
        early_every=first_early,
        early_size=rows[0] - rows[first_early] if first_early < flows else 2,
        layers=count(weights, r"WN\.0\.in_layers\.(\d+)\."),
        kernel=_shape(weights, "WN.0.in_layers.0.weight")[2],
        cond_channels=n_mels * rows[0],
        upsample_kernel=upsample_kernel,
        mel=replace(mel, n_mels=n_mels),
    )


def _expected_shapes(config: WaveGlowConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the published layout, weight norm folded."""
    c, mels, layers = config.channels, config.mel.n_mels, config.layers
    convolutions: dict[str, tuple[int, ...]] = {"upsample": (mels, mels, config.upsample_kernel)}
    for flow, rows in enumerate(config.rows):
        wn = f"WN.{flow}."
        convolutions |= {wn + "start": (c, rows // 2, 1), wn + "end": (rows, c, 1)}
        convolutions[wn + "cond_layer"] = (2 * c * layers, config.cond_channels, 1)
        for i in range(layers):
            convolutions[f"{wn}in_layers.{i}"] = (2 * c, c, config.kernel)
            convolutions[f"{wn}res_skip_layers.{i}"] = (2 * c if i < layers - 1 else c, c, 1)
    mixing: dict[str, tuple[int, ...]] = {
        f"convinv.{flow}.conv.weight": (rows, rows, 1) for flow, rows in enumerate(config.rows)
    }
    biases: dict[str, tuple[int, ...]] = {f"{name}.bias": (shape[0],) for name, shape in convolutions.items()}
    return mixing | biases | {f"{name}.weight": shape for name, shape in convolutions.items()}


def check(weights: Weights, config: WaveGlowConfig, hints: Mapping[str, Any]) -> None:
    """Raises ValueError naming the first weights that are missing, unexpected or misshapen, and wrong hints."""
    expected = _expected_shapes(config)
    problems = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name} is not expected" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name} has shape {list(weights[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    problems += _disagreements(config, hints)
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError("; ".join(problems[:5]) + more)


def _disagreements(config: WaveGlowConfig, hints: Mapping[str, Any]) -> list[str]:
    """Where the file's metadata differ from the shapes of its weights."""
    wn = hints.get("WN_config")
    claimed = dict(hints) | (dict(wn) if isinstance(wn, dict) else {})
    found = {
        "n_mel_channels": config.mel.n_mels,
        "n_flows": config.flows,
        "n_group": config.group,
        "n_layers": config.layers,
        "n_channels": config.channels,
        "kernel_size": config.kernel,
    }
    if any(config.early):
        found |= {"n_early_every": config.early_every, "n_early_size": config.early_size}
    return [
        f"the file claims {name} = {claimed[name]}, its weights have {value}"
        for name, value in found.items()
        if isinstance(claimed.get(name), int) and claimed[name] != value
    ]


def our_name(name: str) -> str:
    """The name of a published weight in the state dict of `WaveGlow`."""
    if name.startswith("convinv."):
        return name.replace("convinv.", "flows.", 1).replace(".conv.", ".mixing.")
    if name.startswith("WN."):
        flow, layer = name.removeprefix("WN.").split(".", 1)
        for theirs, ours in (("in_layers", "conv"), ("res_skip_layers", "res_skip"), ("cond_layer", "cond")):
            layer = re.sub(rf"^{theirs}\.", f"{ours}.", layer)
        return f"flows.{flow}.coupling.wn.{layer}"
    return f"encoder.{name}"
