"""The geometry of a new network: presets, changes to them, and the recipes that ship with glowd."""

from pathlib import Path

import pytest

from glowd.flow.network.waveglow import WaveGlowConfig
from glowd.flow.network.wavenet import WaveNetConfig
from glowd.flow.training.geometry import geometry
from glowd.flow.training.settings import Settings, TrainError, read_config

RECIPES = sorted((Path(__file__).parents[3] / "flow" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_a_complete_run(recipe: Path) -> None:
    voice, train = read_config(str(recipe))
    settings = Settings.from_dict(train | {"data": "a", "test": "b"})
    assert settings.licence != "not stated" and settings.segment_samples == 0
    assert (geometry(voice) == WaveGlowConfig.sourced()) == ("mel" not in voice)
    # A second stage begins with a voice, which has its geometry.
    assert (settings.spectral_weight > 0) == (not voice)


def test_recipes_cover_each_stage() -> None:
    assert [path.stem for path in RECIPES] == ["cosyvoice2", "gpu", "gpu_samples", "likelihood", "samples"]


def test_preset_gives_geometry_and_kind() -> None:
    assert geometry({}) == geometry({"preset": "streaming"}) == WaveGlowConfig.sourced()
    assert geometry({"preset": "plain", "flows": 8}) == WaveGlowConfig(flows=8)
    assert geometry({"preset": "stock", "channels": 64}) == WaveGlowConfig.stock(channels=64)
    assert geometry({"preset": "wavenet", "group": 1}) == WaveNetConfig(group=1)


def test_wrong_geometry_is_refused() -> None:
    with pytest.raises(TrainError, match="known: streaming, plain, stock, wavenet"):
        geometry({"preset": "other"})
    with pytest.raises(TrainError, match=r"voice geometry: unknown setting layer; did you mean layers\?"):
        geometry({"layer": 6})
    with pytest.raises(TrainError, match="layers must be a whole number, from 1 to 10; got 'six'"):
        geometry({"layers": "six"})
