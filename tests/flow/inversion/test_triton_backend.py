"""A layer as one Triton kernel gives what the step in torch gives; where it cannot run, it is refused and says why."""

import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from glowd.flow.inversion import triton_backend
from glowd.flow.inversion.inverter import Inverter
from tests.harness import kernels
from tests.harness.voices import random_voice, tiny

TOLERANCE = 1e-5
Elsewhere = Callable[..., Any]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    """Calls a function in a process where kernels run: on a GPU if there is one, else in Triton's interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setenv("TRITON_INTERPRET", "1")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(torch.set_num_threads, 1).result()  # the process has started, and has its environment
            patch.undo()
            yield lambda function, *arguments: pool.submit(function, *arguments).result()


BASE: dict[str, Any] = dict(flows=2, early_every=1, layers=2)
CASES: list[tuple[dict[str, Any], int, list[int]]] = [
    (dict(layers=3), 3, [2, 1, 2]),  # several tiles, a tile of several streams, chunks shorter than the reach
    (dict(flows=1, early_every=2), 1, [16]),
    (dict(channels=11, layers=1, cond_channels=5), 1, [1, 1]),  # nothing fills a tile, no layer has a residual
    (dict(channels=40, flows=1, early_every=2), 2, [5]),  # several tiles of columns, the last one half empty
    (dict(kernel=5), 1, [1, 2]),
    (dict(kernel=1), 2, [1, 1]),  # no past at all
    (dict(causal=False, layers=3), 2, [3, 1]),
    (dict(squeeze="polyphase", group=8, early_size=2, conditioning="upsample", mel_scale=False), 1, [1, 1]),
    (dict(sourced=True), 2, [1, 2]),
]


@pytest.mark.parametrize(("geometry", "batch", "chunks"), CASES)
def test_chunks_give_what_torch_gives_at_once(
    geometry: dict[str, Any], batch: int, chunks: list[int], elsewhere: Elsewhere
) -> None:
    found = elsewhere(kernels.differences, BASE | geometry, batch, chunks)
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("causal", [True, False])
def test_programs_may_run_in_any_order(causal: bool, elsewhere: Elsewhere) -> None:
    """Did one read what another writes, it would read the new value in this order or in that of the test above."""
    found = elsewhere(kernels.differences, BASE | dict(causal=causal, layers=3), 3, [2, 2], "", True)
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("plant", kernels.PLANTS)
def test_an_error_in_a_kernel_would_be_found(plant: str, elsewhere: Elsewhere) -> None:
    found = elsewhere(kernels.differences, BASE, 1, [2], plant)
    assert found["audio"] > 10 * TOLERANCE


# The bounds on the audio are 1/1024 and 1/8192 of the largest sample, which is about 4. The interpreter cuts bf16 off where
# a device and torch round it: errors uniform in (0, u) have 4 times the mean square of those in (-u / 2, u / 2).
@pytest.mark.parametrize(("precision", "bound", "over_torch"), [("bfloat16", 4e-3, 4), ("float16", 5e-4, 1.2)])
def test_half_precision_costs_what_it_costs_in_torch(
    precision: str, bound: float, over_torch: float, elsewhere: Elsewhere
) -> None:
    found = elsewhere(kernels.rounding, BASE | dict(layers=3), 2, [5], precision)
    assert found["largest"] < bound and max(found["audio"], found["past"]) < over_torch


@pytest.mark.parametrize("geometry", [dict(), dict(causal=False), dict(sourced=True)])
def test_a_vocoder_streams_with_it(geometry: dict[str, Any], elsewhere: Elsewhere) -> None:
    how, difference = elsewhere(kernels.streamed, BASE | dict(flows=1) | geometry, 5, 2)
    assert how == "flows in Triton" and difference < TOLERANCE


@pytest.mark.parametrize("architecture", [80, 90])
def test_it_compiles_for_tensor_cores(architecture: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No device is needed for that: what keeps one from running it well can be seen here."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tiles = triton_backend.Tiles.of(rows=1 << 16, channels=256, itemsize=2, processors=132)
    constants = dict(
        C=256, TAPS=3, CAUSAL=True, LAST=False, ROWS=tiles.rows, COLUMNS=tiles.columns, DEPTH=tiles.depth, WIDEN=False
    )
    names = triton_backend._layer.arg_names
    signature = {
        name: "*bf16" if i < 8 else "constexpr" if name in constants else "i32" for i, name in enumerate(names)
    }
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if i < 8 or "past_" in name or "_row" in name
    }
    source = ASTSource(triton_backend._layer, signature, constants, aligned)
    kernel = triton.compile(source, GPUTarget("cuda", architecture, 32), {"num_warps": tiles.warps})
    ptx = kernel.asm["ptx"]
    assert kernel.metadata.shared <= 99 << 10, "bytes of shared memory, of which consumer cards have the fewest"
    assert len(re.findall(r"mma\S*\.f32\.bf16\.bf16", ptx)) >= 3, "gate, gate and residual run on tensor cores"
    assert len(re.findall(r"cp\.async\.cg\.shared\.global", ptx)) >= 3, (
        "operands come 16 bytes at a time, ahead of time"
    )
    assert ".local" not in ptx, "all sums stay in registers"
    code = kernel.asm["ttgir"]
    stored = code.index("tt.store")
    assert "barrier" in code[stored : code.index("async_copy", stored)], "what is gated is read again behind a barrier"


# -------------------------------------------------------------------- refusals


def test_it_is_refused_without_cuda() -> None:
    with pytest.raises(ValueError, match="backend is 'triton', which this voice cannot have here: the device is cpu"):
        Inverter(random_voice(tiny()), backend="triton")


def test_it_is_refused_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "glowd.flow.inversion.triton_backend")
    monkeypatch.delattr("glowd.flow.inversion.triton_backend")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match="cannot have here: Triton cannot be imported"):
        Inverter(random_voice(tiny()), backend="triton")


@pytest.mark.parametrize(("dtype", "backend"), [(torch.float32, "compiled"), (torch.bfloat16, "torch")])
def test_auto_does_not_take_it(dtype: torch.dtype, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert Inverter(random_voice(tiny()), dtype=dtype).backend == backend
