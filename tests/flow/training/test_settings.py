"""The settings of a run: each wrong one is refused by name, and the learning rate has the shape that is documented."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from glowd.flow.options import OptionError
from glowd.flow.training.settings import FLOOR, Settings, TrainError, read_config

FOLDERS = {"data": "a", "test": "b"}


def test_settings_survive_a_plain_map() -> None:
    settings = Settings("a", "b", steps=7, lr=1e-3)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert Settings.from_dict(FOLDERS | {"minutes": 3}).minutes == 3


@pytest.mark.parametrize(
    "change,error",
    [
        ({"batch": 0}, "batch must be a whole number, at least 1; got 0"),
        ({"lr": 0.0}, "lr must be a number, above 0; got 0.0"),
        ({"lr": float("nan")}, "lr must be a number, above 0; got nan"),
        ({"decay": 1.5}, "decay must be a number, from 0 to 1; got 1.5"),
        ({"precision": "fp8"}, "precision must be one of auto, float32, bf16; got 'fp8'"),
        ({"average": 1.0}, "average must be a number, at least 0 and below 1; got 1.0"),
        ({"spectral_weight": -1.0}, "spectral_weight must be a number, at least 0; got -1.0"),
        ({"spectral_samples": 3}, "spectral_samples must be one of 1, 2; got 3"),
        ({"nll_weight": 0}, "nll_weight must be above 0 where spectral_weight is 0; got 0.0"),
        ({"phase_weight": 1, "spectral_samples": 1}, "phase_weight must be 0 where spectral_samples is 1; got 1.0"),
        ({"batch": "12"}, "batch must be a whole number, at least 1; got '12'"),
        ({"batches": 12}, "unknown setting batches; did you mean batch?"),
    ],
)
def test_wrong_setting_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionError) as refused:
        Settings.from_dict(FOLDERS | change)
    assert error in str(refused.value)


def test_missing_folder_is_named() -> None:
    with pytest.raises(OptionError, match="test is missing: folder of clips to validate on"):
        Settings.from_dict({"data": "a"})


def test_objective_names_the_terms() -> None:
    objectives = [
        Settings("a", "b", nll_weight=nll, spectral_weight=spectral, spectral_samples=samples).objective
        for nll, spectral, samples in ((1, 0, 2), (1, 0.5, 2), (1, 0.5, 1), (0, 1, 2))
    ]
    assert objectives == [
        "likelihood",
        "likelihood + spectral energy distance",
        "likelihood + spectral distance",
        "spectral energy distance",
    ]


def test_learning_rate_warms_up_stays_and_falls() -> None:
    settings = Settings("a", "b", steps=1000, lr=1.0, warm_up_steps=100, decay=0.4)
    rates = [settings.learning_rate(step, settings.progress(step, 0.0)) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and rates[49] == pytest.approx(0.5)
    assert rates[99:601] == [1.0] * 502
    assert rates[800] == pytest.approx((1 + FLOOR) / 2) and rates[1000] == pytest.approx(FLOOR)
    assert all(a >= b for a, b in itertools.pairwise(rates[600:]))


def test_learning_rate_of_minutes_falls_by_the_clock() -> None:
    settings = Settings("a", "b", minutes=10.0, warm_up_steps=0, decay=0.5)
    assert settings.progress(5, 300.0) == 0.5 and settings.progress(5, 900.0) == 1.0
    assert settings.learning_rate(5, 0.5) == settings.lr and settings.learning_rate(5, 0.75) < 0.6 * settings.lr


def test_run_file_holds_geometry_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[voice]\npreset = "stock"\nchannels = 64\n[train]\nbatch = 24\n')
    assert read_config(str(file)) == ({"preset": "stock", "channels": 64}, {"batch": 24})
    assert read_config('{"layers": 6}') == ({"layers": 6}, {})


@pytest.mark.parametrize("content", ["[vioce]\n", "[voice\n"])
def test_broken_run_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(TrainError, match=r"run\.toml"):
        read_config(str(file))


def test_unreadable_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="absent"):
        read_config(str(tmp_path / "absent.toml"))
    with pytest.raises(TrainError, match="cannot be read"):
        read_config("{layers: 6}")
