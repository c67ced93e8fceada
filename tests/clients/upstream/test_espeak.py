"""espeak-ng as an upstream."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest

from glowd.clients.upstream import Manner, UpstreamError, espeak
from glowd.clients.upstream.espeak import Espeak, read_wav_header
from glowd.flow.mel import MelFormat, log_mel
from tests.clients.upstream.speaking import WANTED, frames_of


def test_espeak_mel_equals_that_of_its_wav() -> None:
    command = ["espeak-ng", "--stdout", "-v", "en-us", "hello there"]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    samples = np.frombuffer(wav[44:], "<i2").astype(np.float32) / np.float32(32768)
    heard, wanted = frames_of(Espeak(), "hello there"), log_mel(samples)
    assert heard.shape == wanted.shape
    np.testing.assert_allclose(heard, wanted, atol=1e-4)


def test_espeak_speech_is_resampled_to_the_voices_rate() -> None:
    other = MelFormat(rate_hz=16000)
    assert abs(len(frames_of(Espeak(), "hello", other)) - len(frames_of(Espeak(), "hello")) * 16000 / 22050) < 3


@pytest.mark.parametrize("text", ["", " ", ".", "..."])
def test_text_without_words_has_few_frames(text: str) -> None:
    mel = frames_of(Espeak(), text)
    assert mel.shape[1] == 80 and len(mel) < 100


@pytest.mark.parametrize("text", ["--help me", "broken \udcff surrogate"])
def test_any_text_is_spoken(text: str) -> None:
    assert len(frames_of(Espeak(), text)) > 20


def test_long_speech_comes_in_chunks() -> None:
    speech = Espeak().speak("One sentence follows another one. " * 20, WANTED)
    lengths = [len(frames) for frames in speech.frames]
    assert len(lengths) > 10 and max(lengths) < sum(lengths) / 4


@pytest.mark.parametrize("rate", [0.5, 2.0, 3.0])
def test_espeak_speaks_at_the_rate(rate: float) -> None:
    text = "The quick brown fox jumps over the lazy dog and sleeps."
    ratio = len(frames_of(Espeak(), text)) / len(frames_of(Espeak(), text, manner=Manner(rate)))
    assert ratio == pytest.approx(rate, rel=0.15)


def test_espeak_that_hangs_raises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(espeak, "PATIENCE_S", 0.2)
    with pytest.raises(UpstreamError, match=r"espeak-ng \(voice en-us\) has not spoken 2 characters within 0\.2 s"):
        frames_of(Espeak(), "hi")


def test_unknown_espeak_voice_raises() -> None:
    with pytest.raises(UpstreamError, match="klingon-x"):
        frames_of(Espeak("klingon-x"), "hi")


def test_missing_espeak_raises_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UpstreamError, match="apt-get install espeak-ng"):
        frames_of(Espeak(), "hi")


@pytest.mark.parametrize("wav", [b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEdata\0\0\0\0", b"OggS" * 20])
def test_other_header_than_wav_raises(wav: bytes) -> None:
    with pytest.raises(ValueError, match="its output"):
        read_wav_header(io.BytesIO(wav))
