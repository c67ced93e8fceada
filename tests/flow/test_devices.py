"""Devices and number formats by the names that users give."""

import pytest
import torch

from glowd.flow.devices import pick_device, wants_bf16


def test_device_names_give_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_absent_device_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda:99 does not exist"):
        pick_device("cuda:99")
    with pytest.raises(ValueError, match="unknown; allowed"):
        pick_device("abacus")


def test_auto_precision_is_bf16_where_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for supported in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=supported: value)
        assert wants_bf16("auto", cpu) is supported
        assert wants_bf16("bf16", cpu) and not wants_bf16("float32", cpu)
