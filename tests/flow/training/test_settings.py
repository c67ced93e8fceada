"""What a run is told: every wrong setting is refused by name, and the learning rate has the shape it claims."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.training.settings import FLOOR, Settings, TrainError, geometry, pick_device, read_config, wants_bf16

FOLDERS = {"data": "a", "test": "b"}


def test_settings_survive_a_plain_map() -> None:
    settings = Settings("a", "b", steps=7, lr=1e-3)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert Settings.from_dict(FOLDERS | {"minutes": 3}).minutes == 3


@pytest.mark.parametrize(
    "change,named",
    [
        ({"batch": 0}, "batch is 0; allowed: at least 1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"decay": 1.5}, "0 to 1"),
        ({"precision": "fp8"}, "auto, bf16 or float32"),
        ({"average": 1.0}, "average is 1.0; allowed: 0 to 1, without 1"),
        ({"spectral_weight": -1.0}, "spectral_weight is -1.0; allowed: at least 0"),
        ({"spectral_samples": 3}, "spectral_samples is 3; allowed: 1 or 2"),
        ({"nll_weight": 0}, "nll_weight is 0; allowed: more than 0 if spectral_weight is 0"),
        ({"batch": "12"}, "type int"),
        ({"batches": 12}, "unknown training setting 'batches'; known: data, test"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainError, match=named):
        Settings.from_dict(FOLDERS | change)


def test_the_objective_is_named() -> None:
    named = [
        Settings("a", "b", nll_weight=nll, spectral_weight=spectral, spectral_samples=samples).objective
        for nll, spectral, samples in ((1, 0, 2), (1, 0.5, 2), (1, 0.5, 1), (0, 1, 2))
    ]
    assert named == [
        "likelihood",
        "likelihood + spectral energy distance",
        "likelihood + spectral distance",
        "spectral energy distance",
    ]


def test_folders_must_be_given() -> None:
    with pytest.raises(TrainError, match="give --test FOLDER"):
        Settings.from_dict({"data": "a"})


def test_learning_rate_warms_up_stays_and_falls() -> None:
    settings = Settings("a", "b", steps=1000, lr=1.0, warm_up_steps=100, decay=0.4)
    rates = [settings.learning_rate(step, settings.progress(step, 0.0)) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and rates[49] == pytest.approx(0.5)
    assert rates[99:601] == [1.0] * 502
    assert rates[800] == pytest.approx((1 + FLOOR) / 2) and rates[1000] == pytest.approx(FLOOR)
    assert all(a >= b for a, b in itertools.pairwise(rates[600:]))


def test_a_run_in_minutes_falls_by_the_clock() -> None:
    settings = Settings("a", "b", minutes=10.0, warm_up_steps=0, decay=0.5)
    assert settings.progress(5, 300.0) == 0.5 and settings.progress(5, 900.0) == 1.0
    assert settings.learning_rate(5, 0.5) == settings.lr and settings.learning_rate(5, 0.75) < 0.6 * settings.lr


def test_run_files_hold_geometry_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[voice]\npreset = "stock"\nchannels = 64\n[train]\nbatch = 24\n')
    voice, train = read_config(str(file))
    assert geometry(voice) == WaveGlowConfig.stock(channels=64) and train == {"batch": 24}
    voice, train = read_config('{"layers": 6}')
    assert geometry(voice) == WaveGlowConfig(layers=6) and train == {}


RECIPES = sorted((Path(__file__).parents[3] / "flow" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_of_the_repository_are_runs(recipe: Path) -> None:
    voice, train = read_config(str(recipe))
    settings = Settings.from_dict(train | FOLDERS)
    assert geometry(voice) == WaveGlowConfig() and settings.licence != "not stated"
    # A second stage begins with a voice, which brings its geometry.
    assert (settings.spectral_weight > 0) == (not voice)


def test_there_is_a_recipe_for_each_stage() -> None:
    assert [path.stem for path in RECIPES] == ["gpu", "likelihood", "samples"]


@pytest.mark.parametrize("content", ["[vioce]\n", "[voice\n"])
def test_broken_run_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(TrainError, match=r"run\.toml"):
        read_config(str(file))


def test_wrong_geometry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="absent"):
        read_config(str(tmp_path / "absent.toml"))
    with pytest.raises(TrainError, match="cannot be read"):
        read_config("{layers: 6}")
    with pytest.raises(TrainError, match="known: streaming, stock, wavenet"):
        geometry({"preset": "other"})
    with pytest.raises(ValueError, match="unknown voice setting 'layer'"):
        geometry({"layer": 6})
    with pytest.raises(TrainError, match="wrong type"):
        geometry({"layers": "six"})


def test_devices_that_are_not_there_are_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(TrainError, match="cuda:99 is not there"):
        pick_device("cuda:99")
    with pytest.raises(TrainError, match="unknown; allowed"):
        pick_device("abacus")


def test_bf16_is_taken_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=supported: value)
        assert wants_bf16("auto", cpu) is supported
        assert wants_bf16("bf16", cpu) and not wants_bf16("float32", cpu)
