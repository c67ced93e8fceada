"""The demonstration: its measurements against the fake daemon, its words when something is wrong."""

import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.clients.cli import demo
from glowd.clients.cli.mel_sources import mel_of_file
from glowd.clients.connection import Connection
from glowd.clients.errors import GlowdError
from glowd.daemon import wire
from glowd.flow.mel import MelFormat
from tests.fakes.daemon import HOP, FakeDaemon
from tests.harness.snapshots import SNAPSHOT


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(chunks: Iterator[Any], mel_format: MelFormat) -> Iterator[Any]:
        return chunks

    monkeypatch.setattr(demo, "at_speaking_pace", at_once)


@pytest.mark.usefixtures("hurried")
def test_sentence_is_spoken_and_measured(fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_new_stream_name", lambda connection: connection.client)
    fake.snapshot = {"streams": {"demo": copy.deepcopy(SNAPSHOT["streams"]["talk"])}}
    report = "\n".join(demo.speak(fake.endpoint, tmp_path / "demo.wav"))
    frames = len(mel_of_file(demo.SENTENCE, MelFormat()))
    assert sum(m.frames for m in fake.of_type(wire.Mel)) == frames
    assert soundfile.info(tmp_path / "demo.wav").frames == frames * HOP
    assert fake.of_type(wire.Open)[0].sinks == ["socket", "device"]
    for words in (f"{frames} frames ->", "61.4", "0.310", "network", "1.25", "9.50"):
        assert words in report
    assert [line.split() for line in report.splitlines() if "  device  " in line] == [["device", "-", "-"]]


def test_text_of_its_own_is_spoken_by_hibari(fake: FakeDaemon) -> None:
    assert re.search(
        r"Nobody has recorded .* by hibari: text -> first audio here \d+ ms", demo.speak_text_of_its_own(fake.endpoint)
    )
    assert fake.of_type(wire.Open)[0].sinks == ["socket", "device"]
    assert sum(mel.frames for mel in fake.of_type(wire.Mel)) == fake.of_type(wire.End)[0].total_frames > 150


def test_demo_without_hibari_says_how_to_get_it(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hibari", None)
    assert "-m pip install hibari-tts" in demo.speak_text_of_its_own(fake.endpoint)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "received 0 samples, expected 4"),
        ([np.ones(5, np.float32)], "received 5 samples, expected 4"),
        ([np.zeros(4, np.float32)], "silence"),
    ],
)
def test_wrong_result_raises(parts: list[Any], words: str) -> None:
    with pytest.raises(GlowdError, match=words):
        demo.check(demo.Received(parts), 4)


@pytest.mark.process
def test_failed_start_prints_the_daemons_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.toml").write_text("[server]\nmax_streems = 1\n")
    assert demo.main(["--config", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "x.wav")]) == 1
    said = capfd.readouterr().err
    assert "glowd did not become ready" in said and "max_streems" in said and not (tmp_path / "x.wav").exists()
