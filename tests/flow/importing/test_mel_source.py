"""The mel format of an imported checkpoint: from options, the file, a config.json beside it, or assumed and said."""

import json
from pathlib import Path
from typing import Any

import pytest

from glowd.flow.importing.mel_source import GivenMel, find_mel
from glowd.flow.mel import MelFormat

NVIDIA_16K = {
    "data_config": {
        "training_files": "train_files.txt", "segment_length": 16000, "sampling_rate": 16000.0, "filter_length": 800,
        "hop_length": 200, "win_length": 800, "mel_fmin": 55.0, "mel_fmax": 7600.0,
    }
}  # fmt: skip


def beside(folder: Path, config: Any) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "waveglow.pt"


def test_without_any_source_all_is_assumed_and_said(tmp_path: Path) -> None:
    found = find_mel(tmp_path / "waveglow.pt", {}, GivenMel())
    assert found.format == MelFormat() and set(found.origins.values()) == {"assumed"}
    mel, note = found.lines()
    assert mel == "mel: 22050 Hz (assumed), 256 samples a frame (assumed), 8000 Hz at most (assumed)"
    assert "import it with --rate, --hop, --fmax" in note


def test_config_beside_the_file_is_read(tmp_path: Path) -> None:
    found = find_mel(beside(tmp_path, NVIDIA_16K), {}, GivenMel())
    assert found.format == MelFormat(16_000, 800, 200, 800, 80, 55.0, 7600.0)
    assert found.lines() == [
        "mel: 16000 Hz (config.json), 200 samples a frame (config.json), 7600 Hz at most (config.json)"
    ]


def test_options_come_before_the_file_and_the_file_before_config(tmp_path: Path) -> None:
    found = find_mel(beside(tmp_path, NVIDIA_16K), {"hop": 256, "sampling_rate": 48_000}, GivenMel(rate_hz=24_000))
    assert (found.format.rate_hz, found.format.hop, found.format.fmax_hz) == (24_000, 256, 7600.0)
    origins = ("given", "the file", "config.json")
    assert tuple(found.origins[key] for key in ("rate_hz", "hop", "fmax_hz")) == origins


def test_assumed_band_ends_at_half_of_a_low_rate(tmp_path: Path) -> None:
    assert find_mel(tmp_path / "waveglow.pt", {}, GivenMel(rate_hz=8000)).format.fmax_hz == 4000


@pytest.mark.parametrize("config", [{}, [1], {"data_config": 3}, {"model_type": "bert"}])
def test_config_of_another_program_is_ignored(tmp_path: Path, config: Any) -> None:
    assert find_mel(beside(tmp_path, config), {}, GivenMel()).format == MelFormat()


@pytest.mark.parametrize(
    ("config", "hints", "given", "text"),
    [
        ("{", {}, {}, r"config\.json cannot be read .*move it away and give --rate"),
        ("[" * 100_000, {}, {}, r"config\.json cannot be read"),
        (
            {"data_config": {"sampling_rate": -1}},
            {},
            {},
            "mel format: rate_hz must be a whole number, from 1000 to 384000; got -1",
        ),
        ({"data_config": {"hop_length": 256.5}}, {}, {}, "mel format: hop must be a whole number"),
        ({}, {"hop": 300}, {"hop": 256}, "--hop is 256; the file's upsampling has a stride of 300"),
        ({}, {}, {"rate_hz": 8000, "fmax_hz": 5000.0}, "fmax_hz is 5000; at 8000 Hz at most 4000 is possible"),
    ],
)
def test_impossible_values_are_refused(
    tmp_path: Path, config: Any, hints: dict[str, Any], given: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        find_mel(beside(tmp_path, config), hints, GivenMel(**given))
