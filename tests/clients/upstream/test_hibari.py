"""hibari as an upstream."""

import importlib
import threading
from typing import Any

import numpy as np
import pytest

from glowd.clients.upstream import Manner, UpstreamError, open_upstream
from glowd.clients.upstream.hibari import Hibari
from tests.clients.upstream.speaking import WANTED, frames_of

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps."


@pytest.fixture(scope="module")
def hibari() -> Hibari:
    return Hibari()


def test_hibari_speaks_with_the_levels_of_speech(hibari: Hibari) -> None:
    mel = frames_of(hibari, TEXT)
    assert 200 < len(mel) < 600 and mel.min() >= np.log(1e-5) - 1e-4 and 0 < mel.max() < 2.5
    assert hibari.speak(TEXT, WANTED).stated == WANTED.to_dict()


def test_hibari_speaks_the_same_twice(hibari: Hibari) -> None:
    np.testing.assert_array_equal(frames_of(hibari, TEXT), frames_of(hibari, TEXT))


def test_each_sentence_is_made_when_it_is_wanted(hibari: Hibari) -> None:
    speech = hibari.speak("One sentence. " * 40, WANTED)
    first = next(speech.frames)
    assert len(first) < 200
    speech.frames.close()


@pytest.mark.parametrize("text", ["", " ", "...", "你好", "\x00", "(([[", "\udcff"])
def test_text_without_english_words_has_few_frames(hibari: Hibari, text: str) -> None:
    assert len(frames_of(hibari, text)) < 100


@pytest.mark.parametrize("rate", [0.3, 0.5, 1.5, 2.0, 3.0])
def test_hibari_speaks_at_the_rate(hibari: Hibari, rate: float) -> None:
    ratio = len(frames_of(hibari, TEXT)) / len(frames_of(hibari, TEXT, manner=Manner(rate)))
    assert ratio == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize("semitones", [-6.0, 6.0])
def test_another_pitch_keeps_the_length(hibari: Hibari, semitones: float) -> None:
    moved = len(frames_of(hibari, TEXT, manner=Manner(semitones=semitones)))
    assert moved == pytest.approx(len(frames_of(hibari, TEXT)), rel=0.15)


def test_threads_speak_at_once_without_mixing(hibari: Hibari) -> None:
    texts = [f"This is speaker number {number}." for number in range(4)]
    alone, together = [frames_of(hibari, text) for text in texts], dict[int, Any]()

    def speak(number: int) -> None:
        together[number] = frames_of(hibari, texts[number])

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(together[number], alone[number])


def test_unknown_hibari_voice_raises_what_there_is() -> None:
    with pytest.raises(UpstreamError, match=r"'klingon'.*available: heart"):
        open_upstream("hibari", "klingon")


def test_missing_hibari_raises_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UpstreamError, match=r"-m pip install hibari-tts"):
        open_upstream("hibari")
