"""The front ends of other toolkits, computed by ours: whole, streamed, and in torch with a gradient."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glowd.flow.mel import Floats, MelFormat, MelStream, log_mel
from glowd.flow.mel_formats.statement import voice_mels
from glowd.flow.training.torch_mel import inner_log_mel
from glowd.flow.training.torch_mel import log_mel as torch_log_mel
from glowd.flow.training.voice_mel import voice_mel
from tests.flow.mel_formats.toolkits import FRONT_ENDS
from tests.harness.recordings import voice_like

LENGTHS = [12000, 12001, 12479]
NAMES = sorted(FRONT_ENDS)


def sound(samples: int, rate_hz: int) -> Floats:
    """Harmonics, pauses and breath in every band."""
    breath = 3e-3 * np.random.default_rng(1).standard_normal(samples)
    return (voice_like(1.0, 3, rate_hz)[:samples] + breath).astype(np.float32)


def differs(found: Any, expected: Any) -> float:
    """The largest difference of logs; another shape is a failure."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("name", NAMES)
def test_front_end_equals_the_toolkits(name: str, samples: int) -> None:
    format = voice_mel(name)
    audio = sound(samples, format.rate_hz)
    assert differs(log_mel(audio, format), FRONT_ENDS[name](audio)) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_torch_front_end_equals_the_toolkits(name: str) -> None:
    format = voice_mel(name)
    audio = np.stack([sound(12000, format.rate_hz), 0.1 * sound(12000, format.rate_hz)])
    expected = np.stack([FRONT_ENDS[name](row).T for row in audio])
    assert differs(torch_log_mel(torch.from_numpy(audio), format).numpy(), expected) < 1e-5
    inner, first = inner_log_mel(torch.from_numpy(audio), format)
    begin, frames = first * format.hop - format.edge_samples, inner.shape[2]
    assert 0 <= begin < format.hop and 0 <= 12000 - begin - format.n_fft - (frames - 1) * format.hop < format.hop
    assert differs(inner.numpy(), expected[:, :, first : first + frames]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_silence_is_the_floor_and_has_a_gradient(name: str) -> None:
    format = voice_mel(name)
    audio = torch.zeros(1, 6000, requires_grad=True)
    mel = torch_log_mel(audio, format)
    assert torch.allclose(mel, torch.tensor(format.log_floor).log())
    torch_log_mel(audio + torch.eye(1, 6000), format).sum().backward()
    assert audio.grad is not None and audio.grad.isfinite().all()
    assert (log_mel(np.zeros(6000, np.float32), format) == np.log(np.float32(format.log_floor))).all()


FORMATS = st.builds(
    lambda n_fft, hop, centre: MelFormat(n_fft=n_fft, win=n_fft, hop=min(hop, n_fft), n_mels=20, centre=centre),
    st.sampled_from([256, 400, 512, 1024]), st.integers(50, 700), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@example(MelFormat(n_fft=800, win=800, hop=201, n_mels=20, centre=False), 4020, [])
@given(FORMATS, st.integers(1100, 6000), st.lists(st.integers(1, 2000), max_size=12))
def test_streamed_equals_whole_in_any_format(format: MelFormat, samples: int, cuts: list[int]) -> None:
    audio, stream, parts, at = sound(samples, 22050), MelStream(format), [], 0
    for cut in cuts:
        parts.append(stream.push(audio[at : at + cut]))
        at += cut
    parts += [stream.push(audio[at:]), stream.end()]
    streamed = np.concatenate(parts)
    assert streamed.shape == (samples // format.hop + (1 if format.centre else 0), 20)
    np.testing.assert_allclose(streamed, log_mel(audio, format), atol=1e-6)


def test_format_of_the_first_release_is_written_as_ever() -> None:
    assert list(MelFormat().to_dict()) == [
        "rate_hz", "n_fft", "hop", "win", "n_mels", "fmin_hz", "fmax_hz", "log_floor",
    ]  # fmt: skip
    new = MelFormat(bank="htk", norm="none", centre=False)
    assert new.to_dict() == MelFormat().to_dict() | {"bank": "htk", "norm": "none", "centre": False}
    assert MelFormat.from_dict(new.to_dict()) == new


@pytest.mark.parametrize("name", NAMES)
def test_clients_are_told_of_the_whole_format(name: str) -> None:
    format = voice_mel(name)
    assert voice_mels(format.to_dict()).mel_format == format
