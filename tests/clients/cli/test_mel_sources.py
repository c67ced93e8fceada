"""Recordings, mel files and texts as sources of glowctl."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

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


def test_recording_without_samples_has_no_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.zeros(0, np.float32), 22050)
    assert mel_of_file(tmp_path / "s.wav", FORMAT).shape == (0, 80)


def test_text_of_a_pipe_comes_as_it_is_written() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as pipe:
        text = mel_sources.arriving_text(file)
        pipe.write("é".encode()[:1])
        assert next(text) == ""
        pipe.write("é. b".encode()[1:])
        assert next(text) == "é. b"
        pipe.write(b"\xff")
        pipe.close()
        assert "".join(text) == "\ufffd"


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


def test_pointer_and_pickled_array_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "m.npy").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        SourceError, match=r"m\.npy: it is a git-lfs pointer.*; expected a file of numpy; .*git lfs pull"
    ):
        mel_of_file(tmp_path / "m.npy", MelFormat())
    torch.save({"mel": np.full((5, 80), -4, np.float32)}, tmp_path / "m.pt")
    assert mel_of_file(tmp_path / "m.pt", MelFormat()).shape == (5, 80)
