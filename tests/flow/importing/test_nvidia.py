"""Published checkpoints in every distributed form give the same samples as the published network."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glowd.flow import checkpoint
from glowd.flow.checkpoint import CheckpointError
from glowd.flow.importing.nvidia import convert, import_checkpoint
from glowd.flow.network.waveglow import WaveGlow, WaveGlowConfig
from glowd.flow.torchfile.reader import UnsafeCheckpoint
from tests.harness.publishing import STOCK, Geometry, Layout, Raw, as_module, glow_module, infer, random_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning"),
]

Form = Callable[[nn.Module, Geometry], Any]

NEW, COND_LISTS = Layout(), Layout(old_cond=True)
OLDEST = Layout(old_cond=True, old_res=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Layers this small are slowed down by a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def training_file(model: nn.Module, g: Geometry) -> Any:
    """As NVIDIA/waveglow's train.py writes it."""
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return {"model": model, "iteration": 58000, "optimizer": optimizer, "learning_rate": 1e-4}


def examples_file(model: nn.Module, g: Geometry) -> Any:
    """As DeepLearningExamples' train.py writes it from several GPUs."""
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    return {"epoch": 7, "state_dict": state, "config": g.config, "random_rng_state": torch.random.get_rng_state()}


def wrapped_module(model: nn.Module, g: Geometry) -> Any:
    return {"model": nn.DataParallel(model)}


def state_dict(model: nn.Module, g: Geometry) -> Any:
    return model.state_dict()


def nested_state_dict(model: nn.Module, g: Geometry) -> Any:
    return {"state_dict": {f"waveglow.{k}": v for k, v in model.state_dict().items()} | {"other.net": torch.ones(1)}}


def bare_module(model: nn.Module, g: Geometry) -> Any:
    return model


FORMS: dict[str, tuple[Form, Layout, bool]] = {
    "training file": (training_file, NEW, True),
    "training file, legacy": (training_file, NEW, False),
    "training file of mid 2019": (training_file, COND_LISTS, False),
    "training file of early 2018": (training_file, OLDEST, False),
    "early layout, zip": (training_file, OLDEST, True),
    "bare module, norm removed": (bare_module, Layout(norm="folded"), False),
    "data-parallel module": (wrapped_module, NEW, True),
    "DeepLearningExamples": (examples_file, COND_LISTS, False),
    "DeepLearningExamples, zip": (examples_file, COND_LISTS, True),
    "state dict": (state_dict, NEW, True),
    "state dict, parametrized": (state_dict, Layout(norm="parametrized"), True),
    "state dict, folded, oldest": (state_dict, Layout(True, True, "folded"), True),
    "part of a larger model": (nested_state_dict, NEW, True),
}
GEOMETRIES = [
    Geometry(),
    Geometry(n_flows=4, n_early_every=4, n_group=4, n_layers=1, n_channels=6),
    Geometry(n_mel_channels=7, n_group=16, n_early_size=4, n_early_every=3, n_flows=7, kernel_size=5, n_layers=2),
]


def write(path: Path, raw: Raw, g: Geometry, form: Form, layout: Layout = NEW, zipped: bool = True) -> Path:
    with glow_module() as glow:
        model = as_module(glow, raw, g, layout)
        torch.save(form(model, g), path, _use_new_zipfile_serialization=zipped)
    assert "glow" not in sys.modules
    return path


def network(path: Path) -> WaveGlow:
    made = import_checkpoint(path)
    config, state = made.config, made.state
    voice = WaveGlow(config)
    voice.load_state_dict(state)
    return voice.eval()


def inputs(g: Geometry, frames: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mel = torch.randn(2, g.n_mel_channels, frames) * 2 - 5
    return mel, torch.randn(2, g.n_group, frames * g.stride // g.n_group) * 0.6


@torch.no_grad()
def difference(voice: WaveGlow, raw: Raw, g: Geometry, frames: int = 3) -> float:
    """Largest difference of an imported network's samples from the published algorithm's, whose peak is 1 to 10."""
    mel, z = inputs(g, frames)
    expected = infer(raw, g, mel, z)
    assert 0.5 < expected.abs().max() < 50
    return float((voice.inverse(z, mel) - expected).abs().max())


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["small", "no early output", "odd"])
@pytest.mark.parametrize("form", FORMS)
def test_imported_network_inverts_as_published(tmp_path: Path, form: str, geometry: Geometry) -> None:
    build, layout, zipped = FORMS[form]
    raw = random_weights(geometry)
    path = write(tmp_path / "file.pt", raw, geometry, build, layout, zipped)
    assert difference(network(path), raw, geometry) < 1e-4


def test_published_geometry_imports(tmp_path: Path) -> None:
    raw = random_weights(STOCK)
    path = write(tmp_path / "file.pt", raw, STOCK, bare_module, COND_LISTS, zipped=False)
    made = import_checkpoint(path)
    config, state = made.config, made.state
    assert config == WaveGlowConfig.stock()
    assert sum(value.numel() for value in state.values()) == 87_731_816
    voice = WaveGlow(config)
    voice.load_state_dict(state, assign=True)
    assert difference(voice.eval(), raw, STOCK, frames=2) < 1e-4


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    g = GEOMETRIES[0]
    raw = {name: value.half() for name, value in random_weights(g).items()}
    torch.save(raw, tmp_path / "file.pt")
    state = import_checkpoint(tmp_path / "file.pt").state
    assert all(value.dtype == torch.float32 for value in state.values())
    assert difference(network(tmp_path / "file.pt"), {k: v.float() for k, v in raw.items()}, g) < 1e-4


@pytest.mark.parametrize("half", [False, True])
def test_converted_checkpoint_names_its_source(tmp_path: Path, half: bool) -> None:
    g = Geometry(n_mel_channels=80)
    raw = random_weights(g)
    source, target = write(tmp_path / "file.pt", raw, g, training_file), tmp_path / "voice.safetensors"
    config = convert(source, target, half).config
    header, card = checkpoint.read_header(target)
    assert header == config
    assert card["imported_from"]["file"] == "file.pt" and card["imported_from"]["iteration"] == 58000
    assert len(card["imported_from"]["sha256"]) == 64
    # Sixteen-bit weights move the samples; what they are exactly is test_half_precision_weights_are_widened's business.
    assert difference(checkpoint.load(target), raw, g) < (0.5 if half else 1e-4)


def test_stride_of_a_pickled_module_is_its_hop(tmp_path: Path) -> None:
    g = Geometry(stride=128, upsample_kernel=512)
    raw = random_weights(g)
    voice = network(write(tmp_path / "file.pt", raw, g, bare_module))
    assert voice.config.mel.hop == 128
    assert difference(voice, raw, g) < 1e-4


def test_geometry_is_inferred_from_shapes(tmp_path: Path) -> None:
    g = GEOMETRIES[2]
    torch.save(random_weights(g), tmp_path / "file.pt")
    config = import_checkpoint(tmp_path / "file.pt").config
    found = (config.flows, config.group, config.early_every, config.early_size, config.layers, config.channels)
    assert found == (7, 16, 3, 4, 2, 16)
    assert (config.kernel, config.upsample_kernel, config.mel.n_mels, config.squeeze) == (5, 1024, 7, "polyphase")
    assert not config.causal and not config.mel_scale and config.conditioning == "upsample"


# What cannot be imported, and what is said about it.


def refused(path: Path, content: Any, expected: str) -> None:
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=expected) as caught:
        import_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"WN.3.start.bias": None}, r"WN\.3\.start\.bias is missing"),
        ({"WN.3.start.weight": None}, r"WN\.3\.start\.weight is missing"),
        ({"convinv.2.conv.weight": None}, r"convinv\.2\.conv\.weight is missing"),
        ({"upsample.weight": None}, r"upsample\.weight is missing"),
        ({"WN.0.in_layers.1.weight": None}, r"WN\.0\.in_layers\.1\.weight is missing"),
        ({"WN.0.post.weight": torch.ones(2)}, r"WN\.0\.post\.weight is not expected"),
        ({"WN.1.end.weight": torch.ones(3, 16, 1)}, r"end\.weight has shape \[3, 16, 1\], expected \[8, 16, 1\]"),
        ({"upsample.weight": torch.ones(20)}, r"upsample\.weight has shape \[20\]; expected 3 dimensions"),
        (
            {"upsample.weight": torch.ones(20, 20, 1000)},
            r"upsample_kernel must be a multiple of the hop, 256; got 1000",
        ),
        ({"convinv.1.conv.weight": torch.ones(5, 5, 1)}, r"early_size must be such that"),
        ({"WN.2.cond_layers.1.weight": torch.ones(2, 2, 1)}, r"WN\.2\.cond_layers\.0\.weight is missing"),
        ({"WN.2.skip_layers.0.weight_g": torch.ones(2, 2, 1)}, r"skip_layers\.0\.weight_v is missing; .* needs it"),
        ({"WN.1.start.bias": torch.full((16,), float("nan"))}, r"WN\.1\.start\.bias holds NaN or infinite"),
    ],
)
def test_misfit_weights_are_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    weights = random_weights(GEOMETRIES[0]) | change
    refused(tmp_path / "file.pt", {k: v for k, v in weights.items() if v is not None}, expected)


def test_config_that_contradicts_weights_is_refused(tmp_path: Path) -> None:
    g = GEOMETRIES[0]
    config = g.config | {"n_flows": 12}
    config["WN_config"] = config["WN_config"] | {"n_channels": 512}
    content = {"state_dict": random_weights(g), "config": config}
    refused(
        tmp_path / "file.pt", content, r"the file claims n_flows = 12, its weights have 5; .* n_channels = 512, .* 16"
    )


def test_file_without_a_waveglow_is_described(tmp_path: Path) -> None:
    refused(
        tmp_path / "a.pt",
        {"state_dict": {"encoder.weight": torch.ones(2)}, "epoch": 3},
        "no WaveGlow.*state_dict, epoch",
    )
    refused(tmp_path / "b.pt", torch.nn.ReLU(), "no WaveGlow.*torch.nn.modules.activation.ReLU")
    refused(tmp_path / "c.pt", [1, 2], "no WaveGlow.*a list")


def test_network_with_alternating_halves_is_refused(tmp_path: Path) -> None:
    with glow_module("glow_old") as glow_old:
        torch.save(as_module(glow_old, random_weights(GEOMETRIES[0]), GEOMETRIES[0], NEW), tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"glow_old\.WaveGlow is not supported"):
        import_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_valid_checkpoint_is_refused(tmp_path: Path, zipped: bool) -> None:
    sentinel, g = tmp_path / "it-ran", GEOMETRIES[0]

    def with_program(model: nn.Module, g: Geometry) -> Any:
        model.__dict__["extra"] = Program(f"open({str(sentinel)!r}, 'w').close()")
        return {"model": model}

    path = write(tmp_path / "file.pt", random_weights(g), g, with_program, zipped=zipped)
    with pytest.raises(UnsafeCheckpoint, match=r"file\.pt: .*builtin.*exec"):
        import_checkpoint(path)
    assert not sentinel.exists()


class Program:
    """Pickles as a call of exec."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.text,)


def test_module_that_contains_itself_is_read_once(tmp_path: Path) -> None:
    g = GEOMETRIES[0]

    def looped(model: nn.Module, g: Geometry) -> Any:
        model._modules["again"] = model
        return model

    path = write(tmp_path / "file.pt", random_weights(g), g, looped)
    assert import_checkpoint(path).config.flows == 5
