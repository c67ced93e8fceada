"""The soak itself, for half a minute: it judges what it hears, and a daemon that is disturbed is right to the sample."""

import json
from pathlib import Path

import pytest

from tests.soak import clients, everything, utterances
from tests.soak.__main__ import Lines, table
from tests.soak.picture import draw

SOAK_MINUTES, DISTURBED_S, CALM_S = 0.5, 6.0, 8.0
TIMED = ("gaps on the device", "underruns of utterances")
"""What a busy machine decides, too."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "CALM_END_S", CALM_S)
    monkeypatch.setattr(everything, "PLANS", clients.PLANS[::3])
    monkeypatch.setattr(everything.run_clients, "__defaults__", (clients.PLANS[::3],))


def test_half_a_minute_of_everything_is_right_to_the_sample(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "minutes.jsonl")
    results, faults = everything.soak(SOAK_MINUTES, DISTURBED_S, (), lines.add, minute_s=15.0, bank=4)
    assert [
        result.name for result in results if result.met is False and not any(t in result.name for t in TIMED)
    ] == [], faults
    (minute, *_) = map(json.loads, (tmp_path / "minutes.jsonl").read_text().splitlines())
    assert {"gateway", "speaker", "engine glow", "engine rtisi", "web", "supervisor"} <= minute["processes"].keys()
    assert minute["counts"]["played"] and minute["counts"]["samples listened to"]
    assert any("kill gateway" in one["disturbances"].values() for one in lines.minutes)
    draw(lines.minutes, tmp_path / "soak.png", "half a minute")
    assert (tmp_path / "soak.png").read_bytes()[:4] == b"\x89PNG"
    assert "utterances judged" in table(results, faults)


def test_soak_of_wrong_audio_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where the judge expects one sample to be another."""
    right = utterances.played_wrong
    monkeypatch.setattr(utterances, "played_wrong", lambda total, heard, expected: right(total, heard, expected + 1e-6))
    results, faults = everything.soak(0.1, 0, (), lambda _: None, bank=2)
    missed = [result.name for result in results if result.met is False]
    assert "soak: utterances that were not complete to the sample, or ended at a wrong index" in missed
    assert any("samples differ, the first is 0" in fault for fault in faults)
