"""What `--format` takes, and what `glowctl formats` lists."""

import argparse
from typing import Any

import numpy as np
import pytest

from glowd.clients.cli.formats import format_lines, stated_format, without_padding
from glowd.flow.mel_formats.description import MelDescription
from glowd.flow.mel_formats.presets import PRESETS


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("matcha", {"preset": "matcha"}),
        ("coqui-db,fmax_hz=8000", {"preset": "coqui-db", "fmax_hz": 8000}),
        ("log=log10, scale=0.5,centre=false", {"log": "log10", "scale": 0.5, "centre": False}),
        ("padding=0", {"padding": 0}),
    ],
)
def test_format_is_a_name_and_keys(text: str, stated: dict[str, Any]) -> None:
    assert stated_format(text) == stated


@pytest.mark.parametrize(
    ("text", "words"), [("macha", "did you mean matcha"), ("", "expected a name"), (",", "expected")]
)
def test_unknown_format_raises(text: str, words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        stated_format(text)


def test_list_has_every_preset_with_its_use() -> None:
    head, *lines = format_lines(MelDescription())
    assert head.startswith("FORMAT") and [line.split()[0] for line in lines] == list(PRESETS)
    found = {line.split()[0]: line for line in lines}
    assert found["matcha"].endswith("exact")
    assert "dB rms with --allow-approximate; needs --statistics" in found["espnet"]
    assert "no: rate_hz = 24000 (voice: 22050)" in found["cosyvoice2"]


def test_padding_is_cut_behind_the_last_frame_only() -> None:
    mel = np.ones((6, 80), np.float32)
    mel[[1, 4, 5]] = 0
    assert without_padding(mel, None) is mel
    np.testing.assert_array_equal(without_padding(mel, 0.0), mel[:4])
    assert len(without_padding(np.zeros((5, 80), np.float32), 0.0)) == 0
