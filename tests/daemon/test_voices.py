"""The engine builds the vocoder that a [voices.NAME] table asks for, and its log says how the network runs."""

import sys

import pytest
import torch

from daemon.config import WaveGlowVoice
from daemon.voices import build_vocoder
from flow.streaming import ExactVocoder


def test_the_log_says_how_the_network_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder("glow", WaveGlowVoice(device="cpu"), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "compiled"
    assert "voice glow on cpu: flows compiled" in caplog.text


def test_the_log_says_why_the_network_is_not_compiled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flow.inversion.compiled", raising=False)
    monkeypatch.delattr("flow.inversion.compiled", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder("glow", WaveGlowVoice(device="cpu"), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "torch"
    assert "flows in torch (numba cannot be imported" in caplog.text


@pytest.mark.parametrize(("setting", "backend"), [("auto", "compiled"), ("compiled", "compiled"), ("torch", "torch")])
def test_settings_reach_the_network(setting: str, backend: str) -> None:
    vocoder = build_vocoder("glow", WaveGlowVoice(device="cpu", backend=setting), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == backend
    precise = build_vocoder("glow", WaveGlowVoice(device="cpu", precision="bf16"), 4)
    assert isinstance(precise, ExactVocoder) and str(precise.inverter.dtype) == "torch.bfloat16"


def test_threads_are_those_of_the_compiled_flows_alone() -> None:
    before = torch.get_num_threads()
    try:
        build_vocoder("glow", WaveGlowVoice(device="cpu", threads=2), 4)
        assert torch.get_num_threads() == 1
        build_vocoder("glow", WaveGlowVoice(device="cpu", threads=2, backend="torch"), 4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
