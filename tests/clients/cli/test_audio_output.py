"""Audio that arrives in pieces, written in its place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.clients.cli.audio_output import Timeline, Utterance, WavFile, local_player
from glowd.clients.errors import GlowdError
from glowd.daemon import wire


def piece(first: int, samples: int, **more: Any) -> wire.Audio:
    values = (np.arange(first, first + samples) / 64).astype(np.float32)
    return wire.Audio(more.pop("stream", "s"), more.pop("generation", 0), 0, first, samples, payload=values, **more)


def written(*pieces: wire.Audio) -> list[float]:
    parts: list[Any] = []
    timeline = Timeline(parts.append)
    for item in pieces:
        timeline.add(item)
    return [float(value) * 64 for part in parts for value in part]


def test_pieces_follow_one_another() -> None:
    assert written(piece(0, 3), piece(3, 2)) == [0, 1, 2, 3, 4]


def test_a_gap_is_silence_of_its_length() -> None:
    assert written(piece(0, 2), piece(4, 2, gap=True)) == [0, 1, 0, 0, 4, 5]


def test_what_was_written_is_not_written_again() -> None:
    assert written(piece(0, 4), piece(2, 4), piece(1, 2), piece(6, 1)) == [0, 1, 2, 3, 4, 5, 6]


def test_hearing_may_begin_in_the_middle() -> None:
    assert written(piece(100, 2)) == [100, 101]


def test_an_utterance_is_not_mixed_with_others() -> None:
    parts: list[Any] = []
    utterance = Utterance(piece(0, 2), parts.append)
    utterance.add(piece(0, 5, stream="other"))
    utterance.add(wire.Flushed("other", 0, 1, 2))
    utterance.add(piece(0, 5, generation=1))
    assert (utterance.over, sum(map(len, parts))) == (False, 2)
    utterance.add(wire.Flushed("s", 0, 1, 2))
    assert utterance.over
    assert Utterance(piece(0, 2, last=True), parts.append).over


def test_a_wav_appears_when_it_is_whole(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 22050) as file:
        file.write(np.array([0, 0.5, 2.0], np.float32))
        assert not (tmp_path / "a.wav").exists()
    samples, rate_hz = soundfile.read(tmp_path / "a.wav")
    assert rate_hz == 22050 and samples == pytest.approx([0, 0.5, 1], abs=1e-4) and file.samples == 3


def test_a_wav_that_failed_leaves_nothing(tmp_path: Path) -> None:
    file = WavFile(tmp_path / "a.wav", 22050)
    file.__exit__(RuntimeError, RuntimeError(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_was_interrupted_is_kept(tmp_path: Path) -> None:
    file = WavFile(tmp_path / "a.wav", 22050)
    file.write(np.zeros(7, np.float32))
    file.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert soundfile.info(tmp_path / "a.wav").frames == 7


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(GlowdError, match=r"cannot write .*none/a\.wav"):
        WavFile(tmp_path / "none" / "a.wav", 22050)


def test_a_player_gets_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = tmp_path / "paplay"
    player.write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/args\n/bin/cat > {tmp_path}/heard\n')
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with local_player(22050) as pipe:
        pipe.write(np.array([0.5, -1], np.float32))
    assert np.fromfile(tmp_path / "heard", "<f4").tolist() == [0.5, -1]
    assert "--rate=22050" in (tmp_path / "args").read_text()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GlowdError, match="no player is installed"):
        local_player(22050)
