"""The engine builds the vocoder that a [voices.NAME] table asks for, and its log says how the network runs."""

import pytest
import torch

from glowd.daemon.config import EngineSpec, WaveGlowVoice
from glowd.daemon.engine.vocoders import build_vocoder, find_device
from glowd.flow.streaming import ExactVocoder
from tests.flow.voices import hide_numba


def spec(device: str) -> EngineSpec:
    return EngineSpec("glow/1", "glow", device)


CPU = spec("cpu")


def test_the_log_says_how_the_network_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder(CPU, WaveGlowVoice(), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "compiled"
    assert "voice glow on cpu: flows compiled" in caplog.text


def test_the_log_says_why_the_network_is_not_compiled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_numba(monkeypatch)
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder(CPU, WaveGlowVoice(), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "torch"
    assert "flows in torch (numba cannot be imported" in caplog.text


def test_a_device_is_found_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device(spec("auto")) == find_device(spec("cpu")) == "cpu"
    with pytest.raises(
        ValueError, match=r"voices\.glow\.devices names cuda:0, .* torch sees are: none; name one of these"
    ):
        find_device(spec("cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (find_device(spec("auto")), find_device(spec("cuda:1"))) == ("cuda:0", "cuda:1")
    with pytest.raises(
        ValueError, match="names cuda:2, and the CUDA devices that torch sees are: cuda:0, cuda:1; name"
    ):
        find_device(spec("cuda:2"))


@pytest.mark.parametrize(("setting", "backend"), [("auto", "compiled"), ("compiled", "compiled"), ("torch", "torch")])
def test_settings_reach_the_network(setting: str, backend: str) -> None:
    vocoder = build_vocoder(CPU, WaveGlowVoice(backend=setting), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == backend
    precise = build_vocoder(CPU, WaveGlowVoice(precision="bf16"), 4)
    assert isinstance(precise, ExactVocoder) and str(precise.inverter.dtype) == "torch.bfloat16"


def test_threads_are_those_of_the_compiled_flows_alone() -> None:
    before = torch.get_num_threads()
    try:
        build_vocoder(CPU, WaveGlowVoice(threads=2), 4)
        assert torch.get_num_threads() == 1
        build_vocoder(CPU, WaveGlowVoice(threads=2, backend="torch"), 4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
