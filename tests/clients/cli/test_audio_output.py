"""Audio that arrives in chunks, written at its place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.clients.cli.audio_output import Timeline, UtteranceWriter, WavFile, claim, local_player
from glowd.clients.errors import GlowdError
from glowd.daemon import wire


def chunk(first: int, samples: int, **more: Any) -> wire.Audio:
    values = (np.arange(first, first + samples) / 64).astype(np.float32)
    return wire.Audio(more.pop("stream", "s"), more.pop("generation", 0), 0, first, samples, payload=values, **more)


def written(*chunks: wire.Audio) -> list[float]:
    parts: list[Any] = []
    timeline = Timeline(parts.append)
    for item in chunks:
        timeline.add(item)
    return [float(value) * 64 for part in parts for value in part]


def test_chunks_are_written_one_after_the_other() -> None:
    assert written(chunk(0, 3), chunk(3, 2)) == [0, 1, 2, 3, 4]


def test_gap_is_written_as_silence() -> None:
    assert written(chunk(0, 2), chunk(4, 2, gap=True)) == [0, 1, 0, 0, 4, 5]


def test_overlapping_samples_are_written_once() -> None:
    assert written(chunk(0, 4), chunk(2, 4), chunk(1, 2), chunk(6, 1)) == [0, 1, 2, 3, 4, 5, 6]


def test_first_chunk_may_begin_in_the_middle() -> None:
    assert written(chunk(100, 2)) == [100, 101]


def test_utterance_writer_ignores_other_utterances() -> None:
    parts: list[Any] = []
    utterance = UtteranceWriter(chunk(0, 2), parts.append)
    utterance.add(chunk(0, 5, stream="other"))
    utterance.add(wire.Flushed("other", 0, 1, 2))
    utterance.add(chunk(0, 5, generation=1))
    assert (utterance.ended, sum(map(len, parts))) == (False, 2)
    utterance.add(wire.Flushed("s", 0, 1, 2))
    assert utterance.ended
    assert UtteranceWriter(chunk(0, 2, last=True), parts.append).ended


def test_wav_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with WavFile(claim(tmp_path / "a.wav"), 22050) as file:
        file.write(np.array([0, 0.5, 2.0], np.float32))
        assert not (tmp_path / "a.wav").exists()
    samples, rate_hz = soundfile.read(tmp_path / "a.wav")
    assert rate_hz == 22050 and samples == pytest.approx([0, 0.5, 1], abs=1e-4) and file.samples == 3


def test_wav_file_rounds_to_16_bits(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    with WavFile(claim(tmp_path / "a.wav"), 22050) as file:
        for part in np.split(samples, [0, 1, 2000]):
            file.write(part)
    info, (read, _) = soundfile.info(tmp_path / "a.wav"), soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert (info.subtype, info.channels, info.frames) == ("PCM_16", 1, 5000)
    assert np.abs(read - samples * 32767).max() <= 0.501


def test_wav_file_of_a_failure_is_removed(tmp_path: Path) -> None:
    file = WavFile(claim(tmp_path / "a.wav"), 22050)
    file.__exit__(RuntimeError, RuntimeError(), None)
    assert list(tmp_path.iterdir()) == []


def test_wav_file_of_an_interrupt_is_kept(tmp_path: Path) -> None:
    file = WavFile(claim(tmp_path / "a.wav"), 22050)
    file.write(np.zeros(7, np.float32))
    file.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert soundfile.info(tmp_path / "a.wav").frames == 7


def test_unwritable_wav_file_raises(tmp_path: Path) -> None:
    with pytest.raises(GlowdError, match=r"cannot write .*none/a\.wav"):
        claim(tmp_path / "none" / "a.wav")


def test_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("dear")
    with pytest.raises(GlowdError, match=r"a\.wav exists already, and is a text .*or give --overwrite"):
        claim(tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_text() == "dear"
    with WavFile(claim(tmp_path / "a.wav", overwrite=True), 22050) as file:
        file.write(np.zeros(7, np.float32))
    assert soundfile.info(tmp_path / "a.wav").frames == 7


def test_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with (
        pytest.raises(GlowdError, match=r"a\.wav was made .* meanwhile"),
        WavFile(claim(tmp_path / "a.wav"), 22050) as file,
    ):
        file.write(np.zeros(7, np.float32))
        (tmp_path / "a.wav").write_text("dear")
    assert (tmp_path / "a.wav").read_text() == "dear" and not file.kept


def test_player_receives_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
