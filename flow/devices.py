"""Which device and which number format a network runs with, by the names that users give."""

import torch


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first CUDA device, or the CPU. Raises ValueError for one that does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {name} does not exist: torch finds {count} CUDA devices; try --device cpu")
    return device


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether a training's convolutions run in bfloat16. `auto`: where the hardware has it; emulation is many times slower."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
