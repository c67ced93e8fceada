"""Checkpoints: what is written is read again, older files are read as ever, and newer or spoilt ones are refused in words."""

import json
import re
import subprocess
import sys
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
    ({"scale_bound": float("nan")}, "scale_bound must be a number, above 0 and at most 100; got nan"),
    ({"mel_scale_bound": -7}, "mel_scale_bound must be a number, above 0 and at most 100; got -7"),
    ({"mel_highest": -12}, "mel_highest must be above -11.51, the logarithm of log_floor; got -12"),
    ({"limiter_knee": 1.5}, "limiter_knee must be a number, above 0 and below 1; got 1.5"),
    ({"source": {"top_hz": float("nan")}}, "source.top_hz must be a number, from 1 to 48000; got nan"),
    (
        {"source": {"pitch": {"past_frames": -1}}},
        "source.pitch.past_frames must be a whole number, from 0 to 64; got -1",
    ),
    ({"look_ahead_frames": 0}, "source must be none, unless"),
    ({"mel": {"rate_hz": 192_000}}, "mel must be a format of 8000 to 96000 Hz"),
    (
        {"channels": 1024, "layers": 10, "flows": 64, "early_every": 64},
        "flows.0.coupling.wn.cond.bias has shape [96], expected [20480]",
    ),
    ({"channels": 10**6}, "channels must be a whole number, from 1 to 1024; got 1000000"),
    ({"layers": 40}, "layers must be a whole number, from 1 to 10; got 40"),
    ({"mel_std": 0}, "mel_std must be a number, above 0 and at most 100; got 0"),
    ({"mel_mean": float("inf")}, "mel_mean must be a number, from -100 to 100; got inf"),
    ({"sigma": 2.5}, "sigma must be a number, from 0 to 2; got 2.5"),
    ({"mel": {"rate_hz": 100}}, "mel.rate_hz must be a whole number, from 1000 to 384000; got 100"),
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


@pytest.mark.parametrize("voice", [EMBEDDED, EMBEDDED.with_name("wavenet.safetensors")], ids=["waveglow", "wavenet"])
def test_reading_a_voice_does_not_import_the_compiler(voice: Path) -> None:
    """It takes more than a second, and 100 MB."""
    read = f"import sys; from glowd.flow.checkpoint import load_any; load_any({str(voice)!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert "torch.nn" in done.stdout.split()
    assert not {"torch._dynamo", "sympy"} & set(done.stdout.split())
