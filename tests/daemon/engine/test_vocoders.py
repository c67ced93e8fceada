"""The vocoder of a [voices.NAME] table, and the log line that says how its network runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from glowd.daemon.config import EngineSpec
from glowd.daemon.config_voices import GriffinLimSettings, RtisiSettings, WaveGlowSettings
from glowd.daemon.engine.vocoders import build_vocoder, describe, find_device
from glowd.daemon.runtime.role import CannotStart
from glowd.flow.checkpoint import EMBEDDED
from glowd.flow.mel import MelFormat
from glowd.flow.streaming import ExactVocoder
from tests.harness.voices import hide_numba


def spec(device: str) -> EngineSpec:
    return EngineSpec("glow/1", "glow", device)


CPU = spec("cpu")


def test_log_says_how_the_network_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder(CPU, WaveGlowSettings(), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "compiled"
    assert "voice glow on cpu: flows compiled" in caplog.text


def test_log_says_why_the_network_is_not_compiled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_numba(monkeypatch)
    with caplog.at_level("INFO", "glowd.engine"):
        vocoder = build_vocoder(CPU, WaveGlowSettings(), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == "torch"
    assert "flows in torch (numba cannot be imported" in caplog.text


def test_unknown_cuda_device_is_named_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device(spec("auto")) == find_device(spec("cpu")) == "cpu"
    with pytest.raises(ValueError, match=r"voices\.glow\.devices has cuda:0; .* torch finds: none; use one of these"):
        find_device(spec("cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (find_device(spec("auto")), find_device(spec("cuda:1"))) == ("cuda:0", "cuda:1")
    with pytest.raises(ValueError, match="has cuda:2; the CUDA devices that torch finds: cuda:0, cuda:1; use"):
        find_device(spec("cuda:2"))


def checkpoint(path: Path, **changes: Any) -> str:
    """The embedded voice with another header."""
    with safe_open(EMBEDDED, "pt") as file:
        metadata, weights = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["config"])
    save_file(weights, path, {**metadata, "config": json.dumps({**header, "mel": {**header["mel"], **changes}})})
    return str(path)


def test_checkpoint_that_is_absent_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"none\.safetensors does not exist") as caught:
        build_vocoder(CPU, WaveGlowSettings(checkpoint=str(tmp_path / "none.safetensors")), 4)
    assert not caught.value.settings


def test_checkpoint_that_is_refused_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    with pytest.raises(CannotStart, match=r"page\.safetensors") as caught:
        build_vocoder(CPU, WaveGlowSettings(checkpoint=str(tmp_path / "page.safetensors")), 4)
    assert caught.value.settings


def test_voice_that_clients_cannot_be_told_of_is_refused(tmp_path: Path) -> None:
    """Its file may be refused when it is loaded, or the voice when it is described: it is never served."""
    with pytest.raises(CannotStart, match="rate_hz") as caught:
        vocoder = build_vocoder(
            CPU, WaveGlowSettings(checkpoint=checkpoint(tmp_path / "x.safetensors", rate_hz=10**9)), 4
        )
        describe(vocoder, False, None)
    assert caught.value.settings


def test_absent_cuda_device_is_no_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CannotStart, match="the CUDA devices that torch finds: none") as caught:
        build_vocoder(spec("cuda:0"), WaveGlowSettings(), 4)
    assert not caught.value.settings


@pytest.mark.parametrize(("setting", "backend"), [("auto", "compiled"), ("compiled", "compiled"), ("torch", "torch")])
def test_backend_and_precision_reach_the_network(setting: str, backend: str) -> None:
    vocoder = build_vocoder(CPU, WaveGlowSettings(backend=setting), 4)
    assert isinstance(vocoder, ExactVocoder) and vocoder.inverter.backend == backend
    precise = build_vocoder(CPU, WaveGlowSettings(precision="bf16"), 4)
    assert isinstance(precise, ExactVocoder) and str(precise.inverter.dtype) == "torch.bfloat16"


def test_torch_gets_one_thread_beside_compiled_flows() -> None:
    before = torch.get_num_threads()
    try:
        build_vocoder(CPU, WaveGlowSettings(threads=2), 4)
        assert torch.get_num_threads() == 1
        build_vocoder(CPU, WaveGlowSettings(threads=2, backend="torch"), 4)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [RtisiSettings, GriffinLimSettings])
def test_voice_without_a_network_takes_any_mel_format(kind: type[RtisiSettings] | type[GriffinLimSettings]) -> None:
    described = describe(build_vocoder(CPU, kind(mel="cosyvoice2"), 4), False, None)
    assert (described.rate_hz, described.hop) == (24_000, 480) and described.format["centre"] is False
    assert describe(build_vocoder(CPU, kind(), 4), False, None).format == MelFormat().to_dict()
    with pytest.raises(
        CannotStart, match=r"voices\.glow\.mel: unknown mel format 'cosyvoice4'; did you mean"
    ) as caught:
        build_vocoder(CPU, kind(mel="cosyvoice4"), 4)
    assert caught.value.settings
