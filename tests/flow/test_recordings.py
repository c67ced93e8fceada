"""Recordings on disk: found, converted, written, and refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from glowd.flow.recordings import RecordingError, find_recordings, read_audio, read_speech, write_audio
from tests.harness.recordings import voice_like


def test_other_rate_and_channels_are_converted(tmp_path: Path) -> None:
    wave, high = voice_like(1.0, 0), voice_like(1.0, 0, 44100)
    soundfile.write(tmp_path / "stereo.wav", np.stack([high, high], 1), 44100)
    read = read_audio(tmp_path / "stereo.wav", 22050)
    assert len(read) == len(wave)
    # The breath is another noise at another rate; the voice is the same.
    assert np.corrcoef(read, wave)[0, 1] > 0.99


def test_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"none\.wav: no such file"):
        read_audio(tmp_path / "none.wav", 22050)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(RecordingError, match=r"text\.wav is not a readable recording"):
        read_audio(tmp_path / "text.wav", 22050)


@pytest.mark.parametrize(
    "value,error", [(np.nan, "holds NaN or infinite samples"), (1.5, "peaks at 1.5; allowed: at most 1")]
)
def test_speech_beyond_full_scale_is_refused(tmp_path: Path, value: float, error: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(100, value, np.float32), 22050, subtype="FLOAT")
    assert len(read_audio(tmp_path / "a.wav", 22050)) == 100
    with pytest.raises(RecordingError, match=error):
        read_speech(tmp_path / "a.wav", 22050)


def test_written_samples_are_clipped_and_read_back(tmp_path: Path) -> None:
    samples = np.array([0.5, -3.0, 3.0], np.float32)
    for suffix in ("wav", "flac"):
        write_audio(tmp_path / f"a.{suffix}", samples, 22050)
        assert np.abs(read_audio(tmp_path / f"a.{suffix}", 22050) - [0.5, -1, 1]).max() < 1e-4
    with pytest.raises(RecordingError, match=r"unknown suffix; allowed: \.flac, \.wav"):
        write_audio(tmp_path / "a.mp3", samples, 22050)
    with pytest.raises(RecordingError, match="cannot write"):
        write_audio(tmp_path / "none" / "a.wav", samples, 22050)


def test_lj_speech_layout_is_found_in_its_order(tmp_path: Path) -> None:
    root = tmp_path / "LJSpeech-1.1"
    (root / "wavs").mkdir(parents=True)
    (root / "metadata.csv").write_text("LJ001-0002|in the only sense|in the only sense\nLJ001-0001|Printing|Printing\n")
    for name in ("LJ001-0001", "LJ001-0002", "unlisted"):
        soundfile.write(root / "wavs" / f"{name}.wav", voice_like(0.1, 0), 22050)
    assert [path.stem for path in find_recordings(root)] == ["LJ001-0002", "LJ001-0001"]
    # From the folder around it, it is a folder as any other.
    assert len(find_recordings(tmp_path)) == 3


def test_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="nowhere does not exist"):
        find_recordings(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="holds no recordings"):
        find_recordings(tmp_path)
