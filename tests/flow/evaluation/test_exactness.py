"""Streamed samples against the network's definition, and float64 as the judge of the two."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from glowd.flow.cli import main
from glowd.flow.evaluation import exactness
from glowd.flow.evaluation.exactness import Row, clips, definition, differences, table
from glowd.flow.network.waveglow import WaveGlow
from tests.harness.mels import SENTENCE, speech
from tests.harness.voices import random_voice, sourced, tiny


@pytest.fixture
def voice() -> WaveGlow:
    return random_voice(sourced())


def test_float64_is_nearer_to_either_than_the_goal(voice: WaveGlow) -> None:
    (row,) = differences(voice, [("a", speech()[100:160])])
    assert (row.name, row.frames) == ("a", 60) and row.peak > 0.05
    assert 0 < row.defined_exact < exactness.GOAL and 0 < row.streamed_exact < exactness.GOAL
    assert row.streamed_defined <= row.streamed_exact + row.defined_exact + 1e-9


def test_the_judge_computes_in_float64(voice: WaveGlow) -> None:
    mel = speech()[100:130]
    assert definition(voice, mel, 0, 0.3).dtype == np.float32
    assert definition(voice.double(), mel, 0, 0.3).dtype == np.float64


def test_a_wrong_term_is_no_rounding(voice: WaveGlow, monkeypatch: pytest.MonkeyPatch) -> None:
    right = exactness.render
    monkeypatch.setattr(exactness, "render", lambda *given: right(*given) * np.float32(1.01))
    rows = list(differences(voice, [("a", speech()[100:160])]))
    assert rows[0].streamed_defined > exactness.GOAL and rows[0].streamed_exact > rows[0].defined_exact
    assert table(rows)[-1] == "beyond the goal of 0.0001: 1 of 1; streamed is nearer to float64 in 0"


def test_table_has_worst_first_then_worst_and_median_of_all() -> None:
    rows = [Row(f"clip{i}", 10, 0.5, i * 1e-6, i * 2e-6, i * 3e-6) for i in range(1, 8)]
    head, worst, *_, all_worst, median, verdict = table(rows)
    assert head.split() == ["recording", "peak", "streamed-defined", "streamed-float64", "defined-float64"]
    assert worst.split() == ["clip7", "0.50", "7.0e-06", "1.4e-05", "2.1e-05"]
    assert all_worst.split() == ["worst", "of", "7", "0.50", "7.0e-06", "1.4e-05", "2.1e-05"]
    assert median.split() == ["median", "0.50", "4.0e-06", "8.0e-06", "1.2e-05"]
    assert verdict.startswith("beyond the goal of 0.0001: 0 of 7; streamed is nearer to float64 in 7")


def test_clips_are_spread_over_the_folders(voice: WaveGlow, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for number in range(2):
            shutil.copy(SENTENCE, folder / f"{folder.name}{number}.flac")
    found = list(clips(voice, folders, 2, 50))
    assert [(name, len(mel)) for name, mel in found] == [("a0.flac", 50), ("b1.flac", 50)]
    assert len(list(clips(voice, folders, 9, 50))) == 4


def test_non_causal_voice_is_sent_to_the_other_command() -> None:
    voice = random_voice(tiny(causal=False))
    with pytest.raises(ValueError, match=r"not causal.*glowlab context"):
        next(differences(voice, [("a", speech()[:20])]))


def test_command_states_worst_and_median(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SENTENCE, tmp_path / "one.flac")
    assert main(["exactness", "--data", str(tmp_path), "--frames", "30"]) == 0
    said = capsys.readouterr().out
    assert "worst of 1" in said and "median" in said and "beyond the goal of 0.0001: 0 of 1" in said
    assert main(["exactness", "--data", str(tmp_path), "--clips", "0"]) == 2
