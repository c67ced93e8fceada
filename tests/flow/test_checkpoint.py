"""Checkpoints: what is written is read again, older files are read as ever, and newer or spoilt ones are refused in words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glowd.flow.checkpoint import EMBEDDED, CheckpointError, load, read_header, save
from tests.harness.voices import random_voice, sourced, tiny


def with_metadata(path: Path, **changes: str) -> Path:
    """The file again, with other metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | changes)
    return path


def with_geometry(path: Path, **changes: Any) -> Path:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    return with_metadata(path, config=json.dumps(config | changes))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    voice = random_voice(sourced())
    save(tmp_path / "voice.safetensors", voice.config, voice.state_dict(), {"name": "small"})
    return tmp_path / "voice.safetensors"


def test_a_voice_with_a_source_is_read_as_it_was_written(saved: Path) -> None:
    assert read_header(saved) == (sourced(), {"name": "small"})
    expected = random_voice(sourced()).state_dict()
    found = load(saved).state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_file_of_version_1_is_read_as_a_voice_without_source(tmp_path: Path) -> None:
    voice, path = random_voice(tiny()), tmp_path / "old.safetensors"
    save(path, voice.config, voice.state_dict())
    new = ("source", "scale_bound", "mel_scale_bound", "mel_highest", "limiter_knee")
    old = {key: value for key, value in voice.config.to_dict().items() if key not in new}
    assert load(with_metadata(path, glowd_format="1", config=json.dumps(old))).config == tiny()


def test_a_newer_version_is_refused_by_its_number(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has format 3; this glowd reads 1 and 2"):
        load(with_metadata(saved, glowd_format="3"))


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"scale_bound": float("nan")}, "scale_bound is nan; allowed: above 0, or none"),
    ({"mel_scale_bound": -7}, "mel_scale_bound is -7; allowed: above 0, or none"),
    ({"mel_highest": -12}, "mel_highest is -12; allowed: above -11.51, or none"),
    ({"limiter_knee": 1.5}, "limiter_knee is 1.5; allowed: between 0 and 1, or none"),
    ({"source": {"top_hz": float("nan")}}, "top_hz of the source is nan; allowed: at least 1"),
    ({"source": {"pitch": {"past_frames": -1}}}, "past_frames is -1; allowed: at least 0"),
    ({"look_ahead_frames": 0}, "source is SourceConfig"),
    ({"channels": 8}, "flows.0.coupling.wn.cond.bias has shape [96], expected [48]"),
]


@pytest.mark.parametrize(("changes", "said"), IMPOSSIBLE)
def test_impossible_numbers_are_refused_by_name(changes: dict[str, Any], said: str, saved: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(said)):
        load(with_geometry(saved, **changes))


def test_weights_that_are_no_numbers_are_refused(saved: Path) -> None:
    state = load_file(saved)
    state["pitch.last.bias"][0] = float("nan")
    voice = random_voice(sourced())
    save(saved, voice.config, state)
    with pytest.raises(CheckpointError, match="holds NaN or infinite weights"):
        load(saved)


def test_the_embedded_voice_tells_where_it_comes_from() -> None:
    _, card = read_header(EMBEDDED)
    assert card["data"] and card["licence"]
