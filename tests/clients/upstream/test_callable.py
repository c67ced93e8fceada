"""A Python function of the user's own as an upstream."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from glowd.clients.upstream import Manner, UpstreamError, open_upstream
from tests.clients.upstream.speaking import WANTED, frames_of

MODULE = '''
"""Stands for CosyVoice 1: a decoder that yields mels [1, 80, frames] for a chunk of tokens each."""
import torch

def speak(text):
    for number, word in enumerate(text.split()):
        yield torch.full((1, 80, 3 * len(word)), -5.0 - number)

speak.mel_format = "cosyvoice1"

def at_its_rate(text, rate=1.0):
    return torch.full((80, round(60 / rate)), -4.0)

def fails(text):
    yield torch.full((80, 2), -4.0)
    raise RuntimeError("no GPU")

def wrong(text):
    yield torch.zeros(3, 3)

number = 3
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_voice.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield


def test_function_yields_mels_in_its_own_format() -> None:
    upstream = open_upstream("python:my_voice:speak")
    speech = upstream.speak("one fine", WANTED)
    chunks = list(speech.frames)
    assert speech.stated == {"preset": "cosyvoice1"}
    assert [chunk.shape for chunk in chunks] == [(9, 80), (12, 80)]
    assert [float(chunk[0, 0]) for chunk in chunks] == [-5.0, -6.0]


def test_function_without_a_rate_is_made_faster() -> None:
    upstream = open_upstream("python:my_voice:speak")
    assert len(frames_of(upstream, "a" * 20, manner=Manner(2.0))) == 30


def test_function_with_a_rate_is_told_it() -> None:
    upstream = open_upstream("python:my_voice:at_its_rate")
    assert len(frames_of(upstream, "x", manner=Manner(1.5))) == 40


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "my_voice:fails failed: RuntimeError: no GPU"),
        ("wrong", r"my_voice:wrong failed: ValueError: .*shape \[3, 3\]"),
    ],
)
def test_function_that_fails_is_named(name: str, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        frames_of(open_upstream(f"python:my_voice:{name}"), "x")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("my_voice", "expected MODULE:FUNCTION"),
        ("my_voice:sing", "my_voice has no function sing"),
        ("my_voice:number", "my_voice has no function number"),
        ("no_such_module:speak", "cannot import no_such_module.*is looked for in"),
        ("broken:speak", "cannot import broken.*nothing_like_it"),
    ],
)
def test_function_that_is_not_there_raises(path: str, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        open_upstream(f"python:{path}")


def test_chunks_may_be_tensors_with_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    import my_voice  # type: ignore[import-not-found]  # written by the fixture

    monkeypatch.setattr(my_voice, "speak", lambda text: [torch.full((4, 80), -3.0, requires_grad=True)], raising=True)
    np.testing.assert_array_equal(frames_of(open_upstream("python:my_voice:speak"), "x"), np.full((4, 80), -3.0))
