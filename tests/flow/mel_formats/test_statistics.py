"""Statistics files of toolkits, and files that are none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glowd.flow.mel_formats.statistics import StatisticsError, read_statistics

MEAN, STD = np.linspace(-3, -1, 80), np.linspace(0.5, 0.9, 80)


def close(path: Path) -> None:
    keys = read_statistics(path)
    np.testing.assert_allclose(keys["offset"], MEAN, atol=1e-6)
    np.testing.assert_allclose(keys["scale"], STD, atol=1e-6)


def test_espnets_sums_become_mean_and_deviation(tmp_path: Path) -> None:
    frames = MEAN + STD * np.random.default_rng(0).choice([-1.0, 1.0], (1000, 80))
    frames += MEAN - frames.mean(axis=0)
    path = tmp_path / "feats_stats.npz"
    np.savez(path, count=1000, sum=frames.sum(axis=0), sum_square=np.square(frames).sum(axis=0))
    np.testing.assert_allclose(read_statistics(path)["offset"], frames.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(read_statistics(path)["scale"], frames.std(axis=0), atol=1e-6)


@pytest.mark.parametrize("names", [("mean", "std"), ("mean", "scale"), ("mel_mean", "mel_std")])
def test_an_npz_is_read_by_its_names(tmp_path: Path, names: tuple[str, str]) -> None:
    table: dict[str, Any] = {names[0]: MEAN, names[1]: STD}
    np.savez(tmp_path / "s.npz", **table)
    close(tmp_path / "s.npz")


def test_a_npy_of_two_rows_is_mean_and_scale(tmp_path: Path) -> None:
    np.save(tmp_path / "stats.npy", np.stack([MEAN, STD]).astype(np.float32))
    close(tmp_path / "stats.npy")


def test_json_may_hold_one_number_for_all_bands(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"mel_mean": -5.537, "mel_std": 2.116}))
    assert read_statistics(tmp_path / "s.json") == {"offset": -5.537, "scale": 2.116}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.txt", "1 2", "allowed: .npz"),
        ("s.json", "[1]", "no map"),
        ("s.json", "{", "s.json"),
        ("s.json", '{"a": 1}', "it needs mean and std"),
        ("s.json", '{"mean": 0, "std": 0}', "above 0"),
        ("s.json", '{"mean": [[1, 2], [3, 4]], "std": 1}', "shape [2, 2]"),
        ("s.npz", "no zip", "s.npz"),
        ("none.json", None, "No such file"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, name: str, content: Any, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(StatisticsError, match=name) as caught:
        read_statistics(tmp_path / name)
    assert words in str(caught.value)


def test_coquis_pickle_is_not_run_and_the_way_out_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "scale_stats.npy", np.array({"mel_mean": MEAN}, dtype=object), allow_pickle=True)
    with pytest.raises(StatisticsError, match="savez"):
        read_statistics(tmp_path / "scale_stats.npy")
