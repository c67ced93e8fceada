"""Recordings, mel files and espeak-ng as sources of frames."""

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from glowd.clients.cli import mel_sources
from glowd.clients.cli.mel_sources import SourceError, mel_of_file
from glowd.flow.mel import MelFormat, log_mel

FORMAT = MelFormat()
MEL = np.linspace(-11, 1, 30 * 80, dtype=np.float32).reshape(30, 80)


def tone(rate_hz: int, seconds: float = 0.5) -> Any:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_recording_at_the_voices_rate_is_not_resampled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(22050), 22050, subtype="PCM_16")
    samples, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(mel_of_file(path, FORMAT), log_mel(samples))


def test_other_rate_and_stereo_give_the_same_mel(tmp_path: Path) -> None:
    path = tmp_path / "b.wav"
    soundfile.write(path, np.stack([tone(48000), tone(48000)], axis=1), 48000, subtype="FLOAT")
    heard, wanted = mel_of_file(path, FORMAT), log_mel(tone(22050))
    assert heard.shape == wanted.shape
    assert abs(heard[10:-10].max(axis=1) - wanted[10:-10].max(axis=1)).max() < 0.05
    assert (heard.argmax(axis=1) == wanted.argmax(axis=1))[10:-10].all()


@pytest.mark.parametrize("values", [MEL, MEL.T, MEL[np.newaxis], MEL.T[np.newaxis], MEL.astype(np.float64)])
def test_saved_mel_may_be_transposed(tmp_path: Path, values: Any) -> None:
    np.save(tmp_path / "m.npy", values)
    np.testing.assert_allclose(mel_of_file(tmp_path / "m.npy", FORMAT), MEL)


def test_square_mel_is_read_by_the_files_convention(tmp_path: Path) -> None:
    import torch

    square = np.arange(6400, dtype=np.float32).reshape(80, 80)
    np.save(tmp_path / "m.npy", square)
    torch.save(torch.from_numpy(square), tmp_path / "m.pt")
    np.testing.assert_array_equal(mel_of_file(tmp_path / "m.npy", FORMAT), square)
    np.testing.assert_array_equal(mel_of_file(tmp_path / "m.pt", FORMAT), square.T)


@pytest.mark.parametrize("table", [{"mel": MEL, "text": np.zeros(3)}, {"arr_0": MEL.T}])
def test_npz_file_gives_its_mel(tmp_path: Path, table: dict[str, Any]) -> None:
    np.savez(tmp_path / "m.npz", **table)
    np.testing.assert_array_equal(mel_of_file(tmp_path / "m.npz", FORMAT), MEL)


def test_npz_file_without_a_mel_names_its_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", first=MEL, second=MEL)
    with pytest.raises(SourceError, match="first, second"):
        mel_of_file(tmp_path / "m.npz", FORMAT)


def test_saved_mel_of_other_bands_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((100, 7), np.float16))
    assert mel_of_file(tmp_path / "m.npy", FORMAT, bins=100).shape == (7, 100)


@pytest.mark.parametrize("wrap", ["alone", "map", "list"])
def test_pytorch_file_gives_its_mel(tmp_path: Path, wrap: str) -> None:
    import torch

    tensor = torch.from_numpy(MEL.T.copy())
    torch.save({"alone": tensor, "map": {"mel": tensor, "text": "hi"}, "list": [tensor]}[wrap], tmp_path / "m.pt")
    np.testing.assert_array_equal(mel_of_file(tmp_path / "m.pt", FORMAT), MEL)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.wav", None, "no such file"),
        ("none.npy", None, "No such file"),
        ("bad.wav", b"RIFFxxxx", "is not a readable recording"),
        ("bad.npy", b"hello", "bad.npy"),
        ("bad.pt", b"hello", "bad.pt"),
        ("song.mp4", b"", "unknown suffix '.mp4'; expected one of .wav"),
        ("noise", b"", "unknown suffix ''"),
    ],
)
def test_bad_file_raises_its_name_and_fault(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        mel_of_file(tmp_path / name, FORMAT)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [MEL[:, :79], np.zeros(79), np.zeros((2, 80, 3)), np.full((3, 80), "x")])
def test_array_that_is_no_mel_raises(tmp_path: Path, values: Any) -> None:
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(SourceError, match=r"elements of type|shape"):
        mel_of_file(tmp_path / "m.npy", FORMAT)


def test_pickle_in_npy_file_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"m\.npy"):
        mel_of_file(tmp_path / "m.npy", FORMAT)


def test_too_short_recording_raises(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", tone(22050, 0.01), 22050)
    with pytest.raises(SourceError, match="at least 513"):
        mel_of_file(tmp_path / "s.wav", FORMAT)


def test_espeak_mel_equals_that_of_its_wav() -> None:
    command = ["espeak-ng", "--stdout", "-v", "en-us", "hello there"]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    samples = np.frombuffer(wav[44:], "<i2").astype(np.float32) / np.float32(32768)
    heard, wanted = mel_sources.mel_of_text("hello there", "en-us", FORMAT), log_mel(samples)
    assert heard.shape == wanted.shape
    np.testing.assert_allclose(heard, wanted, atol=1e-4)


def test_espeak_speech_is_resampled_to_the_voices_rate() -> None:
    other = MelFormat(rate_hz=16000)
    frames = len(mel_sources.mel_of_text("hello", "en-us", other))
    same = len(mel_sources.mel_of_text("hello", "en-us", FORMAT))
    assert abs(frames - same * 16000 / 22050) < 3


@pytest.mark.parametrize("text", ["", " ", ".", "..."])
def test_text_without_words_has_few_frames(text: str) -> None:
    mel = mel_sources.mel_of_text(text, "en-us", FORMAT)
    assert mel.shape[1] == 80 and len(mel) < 100


def test_text_like_an_option_is_spoken() -> None:
    assert len(mel_sources.mel_of_text("--help me", "en-us", FORMAT)) > 20


def test_espeak_that_hangs_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    espeak = tmp_path / "espeak-ng"
    espeak.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    espeak.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mel_sources, "ESPEAK_S", 0.2)
    with pytest.raises(SourceError, match=r"espeak-ng has not spoken 2 characters within 0\.2 s"):
        mel_sources.mel_of_text("hi", "en-us", FORMAT)


def test_unknown_espeak_voice_raises() -> None:
    with pytest.raises(SourceError, match="klingon-x"):
        mel_sources.mel_of_text("hi", "klingon-x", FORMAT)


def test_recording_without_samples_has_no_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros(0, np.float32), 22050)
    assert mel_of_file(tmp_path / "s.wav", FORMAT).shape == (0, 80)


def test_missing_espeak_raises_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="apt-get install espeak-ng"):
        mel_sources.mel_of_text("hi", "en-us", FORMAT)


@pytest.mark.parametrize("wav", [b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEdata\0\0\0\0", b"OggS" * 20])
def test_other_header_than_wav_raises(wav: bytes) -> None:
    with pytest.raises(ValueError, match="its output"):
        mel_sources.read_wav_header(io.BytesIO(wav))


def test_chunks_keep_every_frame() -> None:
    parts = np.split(MEL, [0, 1, 14, 14, 29])
    chunks = list(mel_sources.in_chunks(iter(parts), 8))
    assert [len(chunk) for chunk in chunks] == [8, 8, 8, 6]
    np.testing.assert_array_equal(np.concatenate(chunks), MEL)


class Clock:
    """Stands for the module time: it advances when the code sleeps, and when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_speaking_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, chunk_s = Clock(), 10 * 256 / 22050
    monkeypatch.setattr(mel_sources, "time", clock)
    paced, left_s = mel_sources.at_speaking_pace(iter([MEL[:10]] * 6), FORMAT), []
    for _ in range(6):
        next(paced)
        left_s.append(clock.now_s - 100)
        clock.now_s += {2: 2.5 * chunk_s}.get(
            len(left_s), 0.1 * chunk_s
        )  # the second is delayed: the next ones catch up
    assert left_s == pytest.approx([n * chunk_s for n in (0, 1, 3.5, 3.6, 4, 5)])
